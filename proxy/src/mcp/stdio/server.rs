//! The tool server: a process that we start, and that hears from us only.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use oakallow_policy::Permit;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;

use crate::mcp::stdio::WrapError;
use crate::mcp::stdio::credential::Credential;
use crate::mcp::stdio::lines::{self, Lines};
use crate::refusal::Refusal;

/// Longest answer: an image or a file of some tens of megabytes in base64.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The way to the tool server. A message goes out only with a [`Permit`].
pub(super) struct Server(Mutex<Option<ChildStdin>>);

/// The tool server's process; killed should this value be dropped.
pub(super) struct Process(Child);

/// Starts it, with our environment less what is ours. What it writes to standard error goes where ours goes.
pub(super) fn start(
    command: &[OsString],
    credential: &Credential,
) -> Result<(Server, Process, Lines), WrapError> {
    let (program, arguments) =
        command.split_first().map_or((OsString::new(), &[][..]), |(p, a)| (p.clone(), a));
    let fail = |problem| WrapError::Spawn { command: program.to_string_lossy().into_owned(), problem };
    let (output, its_output) = std::io::pipe().map_err(fail)?;
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::piped()).stdout(its_output).kill_on_drop(true);
    for (name, value) in std::env::vars_os() {
        if credential.keeps(&name, &value) {
            command.env_remove(name);
        }
    }
    let mut child = command.spawn().map_err(fail)?;
    // It holds our copy of the end that the server writes to.
    drop(command);
    let stdin = child.stdin.take();
    Ok((Server(Mutex::new(stdin)), Process(child), lines::read(output, ANSWER_BYTES_MAX)))
}

impl Server {
    /// Sends a line, once. An error other than [`Refusal::UpstreamUnreachable`] leaves the outcome unknown.
    pub(super) async fn send(&self, _permit: Permit, line: &[u8]) -> Result<(), Refusal> {
        let mut open = self.0.lock().await;
        let Some(stdin) = open.as_mut() else { return Err(Refusal::UpstreamUnreachable) };
        let mut rest = line;
        while !rest.is_empty() {
            match stdin.write(rest).await {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                _ => {
                    // Whatever came behind half a line would be read as its rest.
                    *open = None;
                    let none = rest.len() == line.len();
                    return Err(if none { Refusal::UpstreamUnreachable } else { Refusal::UpstreamBroken });
                }
            }
        }
        Ok(())
    }

    /// Closes its input, which tells it to end.
    pub(super) async fn close(&self) {
        *self.0.lock().await = None;
    }
}

impl Process {
    pub(super) fn id(&self) -> Option<u32> {
        self.0.id()
    }

    /// Waits for its end, and brings it about when it does not come; `None`: it could not be heard.
    pub(super) async fn end_within(&mut self, grace: Duration) -> Option<ExitStatus> {
        if let Ok(ended) = tokio::time::timeout(grace, self.0.wait()).await {
            return ended.ok();
        }
        tracing::warn!("the tool server does not end with its input; it is killed");
        let _ = self.0.start_kill();
        tokio::time::timeout(grace, self.0.wait()).await.ok()?.ok()
    }
}
