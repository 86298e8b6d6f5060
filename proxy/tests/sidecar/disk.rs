//! A disk that takes nothing any more, for a proxy in a process of its own: the limit on the size of its
//! files is lowered while it runs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::backend::Backend;
use crate::support::policy::{AGENT, OrgBundle};
use crate::support::sidecar::{client, config_text, metric};
use crate::support::upstream::Upstream;

/// The proxy's process; ends with this value.
struct Process {
    child: Child,
    data: String,
    ops: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts it, ignoring the signal that an exceeded limit sends, so that writing fails instead.
    fn start(config: &std::path::Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" --config \"$1\""]);
        command.arg(env!("CARGO_BIN_EXE_oakallow-proxy")).arg(config).env("NO_COLOR", "1");
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

    fn limit_files(&self, bytes: &str) {
        let pid = self.child.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}")]).status();
        assert!(set.expect("util-linux is here").success());
    }
}

#[tokio::test]
async fn a_call_that_the_disk_does_not_take_is_refused_and_does_not_run() {
    let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("proxy.yaml");
    std::fs::write(&config, config_text(dir.path(), &backend.url, &upstream.url, &json!({}))).unwrap();
    let proxy = Process::start(&config);
    let call = async || {
        let call = client().post(format!("http://{}/tools/read", proxy.data)).header("x-api-key", AGENT);
        call.body("{}").send().await.unwrap()
    };
    assert_eq!(call().await.status(), 200);
    proxy.limit_files("1:");
    for _ in 0..3 {
        let answer = call().await;
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], "audit_unavailable", "{body:#}");
    }
    assert_eq!(upstream.count(), 1);
    let ops = async |path: &str| client().get(format!("http://{}{path}", proxy.ops)).send().await.unwrap();
    assert_eq!(ops("/readyz").await.status(), 503);
    assert_eq!(ops("/healthz").await.status(), 200);
    assert_eq!(metric(&ops("/metrics").await.text().await.unwrap(), "oakallow_spool_failing"), 1.0);
    drop(proxy);
    // With room again, the next start goes on where the last write ended.
    let proxy = Process::start(&config);
    let call = client().post(format!("http://{}/tools/read", proxy.data)).header("x-api-key", AGENT);
    assert_eq!(call.body("{}").send().await.unwrap().status(), 200);
    assert_eq!(upstream.count(), 2);
}
