//! Two backends, each a process of its own, on one PostgreSQL. Nothing of it without one (`scripts/postgres run`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use oakallow_backend::{Bootstrap, Config, Database};
use oakallow_policy::wire::Secret;
use reqwest::Method;
use serde_json::{Value, json};
use support::database::{self, Raw};
use support::{Client, OWNER};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

/// Within this, what is revoked or switched off is so at every proxy.
const PROMISED: Duration = Duration::from_secs(2);

/// The process of a replica: this very program, running [`a_replica`] alone.
struct Replica {
    process: Child,
    url: String,
}

/// What replicas share, and each one's own directory below.
struct Shared {
    dir: TempDir,
    database: Database,
    management: String,
}

fn config(data_dir: PathBuf, key_file: PathBuf, url: String) -> Config {
    let listen = ([127, 0, 0, 1], 0).into();
    let database = Database::Postgres(Secret::new(url));
    Config { database, key_file: Some(key_file), ..Config::new(listen, data_dir) }
}

#[tokio::test]
#[ignore = "the process of a replica, started by the tests below"]
async fn a_replica() {
    let from = |name: &str| std::env::var(name).unwrap();
    let config = config(from("REPLICA_DIR").into(), from("REPLICA_KEY").into(), from("REPLICA_DATABASE"));
    let running = oakallow_backend::start(config).await.unwrap();
    println!("\nlistening on {}", running.addr);
    std::future::pending::<()>().await;
}

impl Shared {
    /// `None` without PostgreSQL.
    async fn new() -> Option<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let database = database::fresh(&dir.path().join("first")).await;
        let Database::Postgres(url) = &database else { return None };
        let config = config(dir.path().join("first"), dir.path().join("key"), url.expose().to_owned());
        let first = oakallow_backend::start(config).await.unwrap();
        let org = Bootstrap { org: "demo".to_owned(), owner_email: OWNER.to_owned() };
        let management = first.bootstrap(org).await.unwrap().expose().to_owned();
        first.shutdown().await;
        Some(Self { dir, database, management })
    }

    fn url(&self) -> &str {
        let Database::Postgres(url) = &self.database else { unreachable!("it is PostgreSQL") };
        url.expose()
    }

    async fn replica(&self, name: &str) -> Replica {
        Replica::start(&self.dir.path().join(name), &self.dir.path().join("key"), self.url()).await
    }

    fn admin(&self, at: &Replica) -> Client {
        Client::new(&at.url, Some(&self.management))
    }

    async fn raw(&self) -> Raw {
        Raw::open(self.dir.path(), &self.database).await
    }
}

impl Replica {
    async fn start(data_dir: &Path, key_file: &Path, database: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["a_replica", "--exact", "--ignored", "--nocapture"])
            .env("REPLICA_DIR", data_dir)
            .env("REPLICA_KEY", key_file)
            .env("REPLICA_DATABASE", database)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let addr = loop {
            let line = lines.next_line().await.unwrap().expect("the replica ended");
            if let Some(addr) = line.strip_prefix("listening on ") {
                break addr.to_owned();
            }
        };
        Self { process, url: format!("http://{addr}") }
    }

    /// As by `kill -9`.
    async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }
}

/// A proxy's stream of events.
struct Stream {
    response: reqwest::Response,
    read: String,
}

impl Stream {
    async fn open(proxy: &Client, id: &str) -> Self {
        let response = proxy.request(Method::GET, &format!("/v1/proxies/{id}/events")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut stream = Self { response, read: String::new() };
        stream.next_of("current").await;
        stream
    }

    async fn next_of(&mut self, event: &str) {
        let wanted = format!("event: {event}\n");
        loop {
            if let Some(at) = self.read.find(&wanted) {
                self.read.drain(..at + wanted.len());
                return;
            }
            let chunk = self.response.chunk().await.unwrap().expect("the stream ended");
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

/// A proxy that joins at one backend: its client there, and its id.
async fn enrol(admin: &Client) -> (Client, String) {
    let joined = admin.post("/v1/proxies/join-tokens", json!({"audiences": ["ops"]})).await.created();
    let enroll = json!({"join_token": joined["join_token"], "name": "p", "version": "0",
        "public_key": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let enrolled = Client::new(&admin.url, None).post("/v1/proxies/enroll", enroll).await.created();
    let text = |name: &str| enrolled[name].as_str().unwrap().to_owned();
    (Client::new(&admin.url, Some(&text("proxy_key"))), text("proxy_id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_hundred_redemptions_over_two_backends_one_wins() {
    let Some(shared) = Shared::new().await else { return };
    let (one, other) = (shared.replica("one").await, shared.replica("other").await);
    let admin = shared.admin(&one);
    admin.seed().await;
    let caller = admin.standard(&["acme"]).await;
    let server = admin.issued(json!({"name": "t", "tier": "tool", "audience": "ops"})).await;
    let minted = caller.post("/v1/tokens/mint", json!({"tool_name": "restart_service"})).await.created();
    let body = json!({"token": minted["token"], "tool_name": "restart_service"});
    let servers = [server.at(&one.url), server.at(&other.url)];
    let attempts = (0..500).map(|n| servers[n % 2].post("/v1/tokens/verify", body.clone()));
    let answers: Vec<Value> = join_all(attempts).await.into_iter().map(support::Answer::ok).collect();
    let won = answers.iter().filter(|answer| answer["valid"] == true).count();
    let replayed = answers.iter().filter(|answer| answer["reason"] == "replayed").count();
    assert_eq!((won, replayed), (1, 499));
    let redeemed = "SELECT COUNT(*) FROM events WHERE type = 'token.redeemed'";
    assert_eq!(shared.raw().await.count(redeemed).await, 1);
}

/// Tenants that are created under a disturbance.
const TENANTS: usize = 200;

/// Creates them at two backends, as a client does: it asks the other one when one does not answer, and takes what is
/// there for done.
async fn create_tenants(admins: &[Client; 2], done: &AtomicUsize) {
    let create = async |n: usize| {
        let body = json!({"id": format!("t{n}")});
        for attempt in 0.. {
            let asked =
                admins[(n + attempt) % 2].request(Method::POST, "/v1/tenants").json(&body).send().await;
            match asked.map(|answer| answer.status().as_u16()) {
                Ok(201) => break,
                Ok(409) if attempt > 0 => break,
                Ok(503) | Err(_) => {}
                Ok(status) => panic!("{status}"),
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    };
    join_all((0..TENANTS).map(create)).await;
}

async fn until_done(done: &AtomicUsize, many: usize) {
    while done.load(Ordering::Relaxed) < many {
        tokio::task::yield_now().await;
    }
}

/// Each tenant is there once, with its event, its version and its line of the feed.
async fn nothing_is_lost_or_doubled(shared: &Shared) {
    let made = i64::try_from(TENANTS).unwrap();
    let mut raw = shared.raw().await;
    for counted in [
        "SELECT COUNT(*) FROM tenants",
        "SELECT COUNT(*) FROM events WHERE type = 'tenant.created'",
        "SELECT COUNT(DISTINCT body) FROM events WHERE type = 'tenant.created'",
        "SELECT policy_version - 1 FROM orgs",
        "SELECT COUNT(*) FROM feed",
    ] {
        assert_eq!(raw.count(counted).await, made, "{counted}");
    }
    let dir = shared.dir.path();
    let checked = oakallow_backend::audit::verify_in(dir, &shared.database, "demo").await.unwrap();
    assert!(checked.is_sound(), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_killed_loses_and_doubles_nothing() {
    let Some(shared) = Shared::new().await else { return };
    let (mut one, other) = (shared.replica("one").await, shared.replica("other").await);
    let (admins, done) = ([shared.admin(&one), shared.admin(&other)], AtomicUsize::new(0));
    let kill = async {
        until_done(&done, TENANTS / 4).await;
        one.kill().await;
    };
    tokio::join!(create_tenants(&admins, &done), kill);
    nothing_is_lost_or_doubled(&shared).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cuts_everybody_off_loses_and_doubles_nothing() {
    let Some(shared) = Shared::new().await else { return };
    let (one, other) = (shared.replica("one").await, shared.replica("other").await);
    let (admins, done) = ([shared.admin(&one), shared.admin(&other)], AtomicUsize::new(0));
    // As a restart does, to those who are connected.
    let cut = async {
        let mut raw = shared.raw().await;
        for quarter in 1..=3 {
            until_done(&done, TENANTS * quarter / 4).await;
            let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            raw.execute(all).await.unwrap();
        }
    };
    tokio::join!(create_tenants(&admins, &done), cut);
    nothing_is_lost_or_doubled(&shared).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_one_backend_is_heard_at_the_other_within_two_seconds() {
    let Some(shared) = Shared::new().await else { return };
    let (one, other) = (shared.replica("one").await, shared.replica("other").await);
    let (admin, elsewhere) = (shared.admin(&one), shared.admin(&other));
    admin.seed().await;
    let caller = admin.standard(&["acme"]).await;
    let (proxy, id) = enrol(&admin).await;
    let proxy = proxy.at(&other.url);
    let bundle = async || {
        let bundle = proxy.get(&format!("/v1/proxies/{id}/bundle")).await;
        assert_eq!(bundle.status, 200, "{}", bundle.text);
        bundle.json()["payload"].as_str().unwrap().to_owned()
    };
    let mut stream = Stream::open(&proxy, &id).await;
    let key = elsewhere.get("/v1/keys").await.ok();
    let key = key["data"].as_array().unwrap().iter().find(|key| key["tier"] == "standard").unwrap();
    let key = key["id"].as_str().unwrap().to_owned();
    assert!(bundle().await.contains(&key));

    let begun = Instant::now();
    admin.put("/v1/kill-switches", json!({"scope": "org"})).await.ok();
    timeout(PROMISED, stream.next_of("version")).await.expect("the kill switch was not heard of");
    let switched = bundle().await;
    assert!(switched.contains("kill_switches") && !switched.contains(r#""kill_switches":[]"#), "{switched}");
    assert!(begun.elapsed() < PROMISED);

    // Also when what would have told of it is gone.
    let listening = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    shared.raw().await.execute(listening).await.unwrap();
    let begun = Instant::now();
    admin.delete(&format!("/v1/keys/{key}")).await.no_content();
    timeout(PROMISED, stream.next_of("version")).await.expect("the revocation was not heard of");
    assert!(!bundle().await.contains(&key) && begun.elapsed() < PROMISED);
    let check = json!({"tool_name": "restart_service"});
    caller.at(&other.url).post("/v1/permissions/check", check).await.problem(401, "key_revoked");
}

#[tokio::test]
async fn a_backend_with_another_key_file_does_not_start() {
    let Some(shared) = Shared::new().await else { return };
    let stranger =
        config(shared.dir.path().join("x"), shared.dir.path().join("other-key"), shared.url().to_owned());
    let refused = oakallow_backend::start(stranger).await.err().unwrap().to_string();
    assert!(refused.contains("belongs to another key file"), "{refused}");
}

/// Two that start at once on an empty database agree on one key file, and on one schema.
#[tokio::test]
async fn of_two_first_starts_with_different_key_files_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let Database::Postgres(url) = database::fresh(&dir.path().join("a")).await else { return };
    let start = |name: &str| {
        let key = dir.path().join(format!("{name}.key"));
        oakallow_backend::start(config(dir.path().join(name), key, url.expose().to_owned()))
    };
    let (a, b) = tokio::join!(start("a"), start("b"));
    let started: BTreeSet<bool> = [a.is_ok(), b.is_ok()].into();
    assert_eq!(started.len(), 2);
}
