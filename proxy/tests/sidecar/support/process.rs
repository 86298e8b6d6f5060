//! A proxy in a process of its own, which can be killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use super::PATIENCE;

/// The proxy's process; killed (`kill -9`) with this value.
pub(crate) struct Process {
    child: Child,
    pub(crate) data: String,
    pub(crate) ops: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts it.
    pub(crate) fn start(config: &std::path::Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oakallow-proxy"));
        command.arg("--config").arg(config).env("NO_COLOR", "1");
        let mut child = command.env("RUST_LOG", "info").stderr(Stdio::piped()).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let (said, ready) = mpsc::channel();
        std::thread::spawn(move || {
            // To the end: a full pipe would stop it.
            for line in log.lines().map_while(Result::ok).filter(|line| line.contains("the proxy is ready")) {
                let _ = said.send(line);
            }
        });
        let line = ready.recv_timeout(PATIENCE).expect("it is ready");
        let addr = |name: &str| {
            let at = line.split_once(&format!("{name}=")).expect("an address").1;
            at.split(' ').next().expect("one").to_owned()
        };
        let (data, ops) = (addr("listen"), addr("ops"));
        Self { child, data, ops }
    }

    pub(crate) fn limit_files(&self, bytes: &str) {
        let pid = self.child.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}")]).status();
        assert!(set.expect("util-linux is here").success());
    }
}
