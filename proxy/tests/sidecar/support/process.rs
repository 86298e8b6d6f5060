//! A proxy in a process of its own, which can be killed.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::PATIENCE;
use super::policy::AGENT;
use super::sidecar::{client, metric};

/// The clock of a process, which can be set while that runs. The steady clock is not touched.
pub(crate) struct Clock {
    file: PathBuf,
    env: Vec<(&'static str, OsString)>,
}

impl Clock {
    /// Right so far; its file is for libfaketime.
    pub(crate) fn right(file: &Path) -> Self {
        // Where the library is differs from one system to another; its command knows.
        let library = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let library = String::from_utf8(library.expect("faketime is here").stdout).unwrap();
        let env = vec![
            ("LD_PRELOAD", library.trim().into()),
            ("FAKETIME_TIMESTAMP_FILE", file.into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
        let clock = Self { file: file.to_owned(), env };
        clock.is_off_by(0);
        clock
    }

    /// From now on, so many seconds from the right time.
    pub(crate) fn is_off_by(&self, seconds: i64) {
        // At once, and whole.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).expect("a file");
        std::fs::rename(next, &self.file).expect("a file");
    }
}

const PROXY: &str = env!("CARGO_BIN_EXE_oakallow-proxy");

/// The proxy's process; killed (`kill -9`) with this value.
pub(crate) struct Process {
    child: Child,
    pub(crate) data: String,
    pub(crate) ops: String,
    log: Arc<Mutex<Vec<String>>>,
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
    pub(crate) fn start(config: &Path) -> Self {
        Self::start_logging(config, "info")
    }

    /// The same, with these variables.
    pub(crate) fn start_with(config: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(PROXY);
        command.envs(env.iter().copied());
        Self::run(command, config, "info")
    }

    /// The same, logging as `RUST_LOG` says.
    pub(crate) fn start_logging(config: &Path, filter: &str) -> Self {
        Self::run(Command::new(PROXY), config, filter)
    }

    /// The same; what it writes where, and when it waits for the disk, is in `trace` (see `power.rs`).
    pub(crate) fn start_traced(config: &Path, trace: &Path) -> Self {
        let mut command = Command::new("strace");
        // `-D`: the child is the proxy itself, so that it can be killed.
        let traced = "trace=write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync";
        command.args(["-D", "-f", "-yy", "-s0", "-e", traced, "-o"]);
        command.arg(trace).arg(PROXY);
        Self::run(command, config, "info")
    }

    /// The same, by this clock.
    pub(crate) fn start_by(config: &Path, clock: &Clock) -> Self {
        let mut command = Command::new(PROXY);
        command.envs(clock.env.iter().cloned());
        Self::run(command, config, "info")
    }

    /// The same, with these variables in its environment.
    pub(crate) fn start_in(config: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(PROXY);
        command.envs(variables.iter().copied());
        Self::run(command, config, "info")
    }

    fn run(mut command: Command, config: &Path, filter: &str) -> Self {
        command.arg("--config").arg(config).env("NO_COLOR", "1");
        let mut child = command.env("RUST_LOG", filter).stderr(Stdio::piped()).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let (said, ready) = mpsc::channel();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        std::thread::spawn(move || {
            // To the end: a full pipe would stop it.
            for line in log.lines().map_while(Result::ok) {
                if line.contains("the proxy is ready") {
                    let _ = said.send(line.clone());
                }
                keep.lock().unwrap().push(line);
            }
        });
        let line = ready.recv_timeout(PATIENCE).expect("it is ready");
        let addr = |name: &str| {
            let at = line.split_once(&format!("{name}=")).expect("an address").1;
            at.split(' ').next().expect("one").to_owned()
        };
        let (data, ops) = (addr("listen"), addr("ops"));
        Self { child, data, ops, log: kept }
    }

    /// What it logged so far, line by line.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory (`proc_pid_status(5)`).
    pub(crate) fn resident_bytes(&self) -> usize {
        self.memory_bytes("VmRSS:")
    }

    /// The most that this has been so far.
    pub(crate) fn resident_bytes_peak(&self) -> usize {
        self.memory_bytes("VmHWM:")
    }

    /// How often its threads went to sleep, which is as often as they woke (`proc_pid_status(5)`).
    pub(crate) fn sleeps(&self) -> usize {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs");
        // A thread may end meanwhile.
        let each = threads.flatten().filter_map(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status")).ok()?;
            status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?
                .trim()
                .parse::<usize>()
                .ok()
        });
        each.sum()
    }

    fn memory_bytes(&self, of: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(of)).expect("Linux says so");
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        super::until("the end of the process", async || self.child.try_wait().expect("our child")).await
    }

    /// A message to the MCP route.
    pub(crate) fn rpc(&self, message: &Value) -> RequestBuilder {
        let url = format!("http://{}/mcp", self.data);
        let accepts = "application/json, text/event-stream";
        client().post(url).header("x-api-key", AGENT).header("accept", accepts).json(message)
    }

    /// Sends a signal by its name (`TERM`, `HUP`).
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// The sum of a metric's series, or the value of one that is named with its labels; 0 when there is none.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = client().get(format!("http://{}/metrics", self.ops)).send().await.unwrap();
        metric(&text.text().await.unwrap(), name)
    }

    /// A call of a tool.
    pub(crate) fn call(&self, tool: &str) -> RequestBuilder {
        let url = format!("http://{}/tools/{tool}", self.data);
        client().post(url).header("x-api-key", AGENT).json(&json!({"id": "42"}))
    }

    /// Lets it have no more files and sockets than now, or as many as it wants.
    pub(crate) fn limit_open(&self, limited: bool) {
        let pid = self.child.id().to_string();
        let used = || {
            let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
            let numbers = open.filter_map(|fd| fd.ok()?.file_name().to_str()?.parse::<u64>().ok());
            // The next number is the first that is free.
            let used: std::collections::BTreeSet<u64> = numbers.collect();
            (0..).find(|n| !used.contains(n)).unwrap_or_default()
        };
        let limit = if limited { used().to_string() } else { "1024".to_owned() };
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).status();
        assert!(set.expect("util-linux is here").success());
    }

    pub(crate) fn limit_files(&self, bytes: &str) {
        let pid = self.child.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}")]).status();
        assert!(set.expect("util-linux is here").success());
    }
}
