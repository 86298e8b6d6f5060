//! Child processes: their output goes to files, and they end with the value that stands for them.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use std::{env, thread};

use tempfile::TempDir;

use crate::wait::until_within;

/// How long a process may take until it says what it is waited for to say.
const START: Duration = Duration::from_secs(60);

/// A directory for the files of one test. It stays when the test fails.
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        Self(Some(tempfile::Builder::new().prefix("oakallow-e2e-").tempdir().expect("a temporary directory")))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("it is there until the end").path()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(dir) = self.0.take()
        {
            eprintln!("what the processes wrote is kept in {}", dir.keep().display());
        }
    }
}

/// A running process of ours. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts it; what it writes is appended to `<dir>/<name>.out` and `<dir>/<name>.err`.
    #[must_use]
    pub fn spawn(name: &str, mut command: Command, dir: &Path) -> Self {
        let [out, err] = ["out", "err"].map(|end| dir.join(format!("{name}.{end}")));
        command.stdin(Stdio::null()).stdout(appending(&out)).stderr(appending(&err));
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name} ({command:?}): {e}"));
        Self { name: name.to_owned(), child, out, err }
    }

    /// The same, with an input to write to.
    #[must_use]
    pub fn spawn_with_input(name: &str, mut command: Command, dir: &Path) -> (Self, ChildStdin) {
        let [out, err] = ["out", "err"].map(|end| dir.join(format!("{name}.{end}")));
        command.stdin(Stdio::piped()).stdout(appending(&out)).stderr(appending(&err));
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name} ({command:?}): {e}"));
        let input = child.stdin.take().expect("it is piped");
        (Self { name: name.to_owned(), child, out, err }, input)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn logged(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Waits until something is found in what it says and logs. It must not end before.
    pub async fn until<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let name = self.name.clone();
        until_within(START, &format!("{name}: {what}"), async || {
            let all = format!("{}\n{}", self.said(), self.logged());
            let found = find(&all);
            if found.is_none()
                && let Some(status) = self.child.try_wait().expect("our child")
            {
                panic!("{name} ended with {status} before: {what}\n{all}");
            }
            found
        })
        .await
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// SIGKILL, and reaped.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by its name (`TERM`, `HUP`).
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "no {signal} for {}", self.name);
    }

    /// Waits for the end.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        let end = async || self.child.try_wait().expect("our child");
        until_within(limit, &format!("the end of {name}"), end).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            let said = format!("{}{}", self.said(), self.logged());
            let tail: Vec<&str> = said.lines().rev().take(25).collect();
            eprintln!("--- the last lines of {}:", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        self.kill();
    }
}

fn appending(path: &Path) -> File {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()))
}

/// The `oakallow` binary: `OAKALLOW_BIN`, or the one built beside this test.
#[must_use]
pub fn oakallow() -> Command {
    let path = env::var_os("OAKALLOW_BIN").map_or_else(beside_this_test, PathBuf::from);
    assert!(
        path.is_file(),
        "there is no {}: build it first (`cargo build -p oakallow`), or run the whole workspace's tests",
        path.display()
    );
    Command::new(path)
}

fn beside_this_test() -> PathBuf {
    let test = env::current_exe().expect("this test has a path");
    test.parent().and_then(Path::parent).expect("<target>/<profile>/deps/<test>").join("oakallow")
}

/// The top of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e/ is in it").to_owned()
}

/// A port that was free just now, for a process that must come back on the same port. Outside the range
/// from which the system takes ports for others (Linux: from 32768).
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() * 61 % 12_000).expect("below 12,000");
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
