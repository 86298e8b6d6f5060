//! The access log: one JSON object a line, one line a request. Written by a thread of its own, from a queue of
//! bounded length.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use oakallow_policy::timestamp::rfc3339;
use prometheus::IntCounter;
use serde::Serialize;
use tokio::sync::oneshot;

use super::trail::{Ended, Phase};
use crate::metrics::Metrics;

/// Lines that wait for the disk; about 4 MB.
const QUEUE_MAX: usize = 8_192;

/// Bytes in one write.
const WRITE_MAX: usize = 64 * 1024;

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, which is appended to.
    File(PathBuf),
}

/// One line. docs/guide/observability.md lists the members.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    time: String,
    txn: &'a str,
    listener: &'a str,
    #[serde(flatten)]
    about: About<'a>,
    bytes_in: u64,
    bytes_out: u64,
    total_ms: f64,
}

/// What not every request has.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
struct About<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved_from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decide_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
}

impl<'a> Line<'a> {
    pub(super) fn of(ended: &Ended<'a>) -> Self {
        let noted = ended.noted;
        let ms = |phase| noted.took(phase).map(milliseconds);
        let about = About {
            client: noted.client,
            http_version: noted.http_version,
            principal: noted.principal.as_deref(),
            tenant: noted.tenant.as_deref(),
            route: noted.route.as_deref(),
            mcp_method: noted.mcp_method,
            tool: noted.tool.as_deref(),
            resource: noted.resource.as_deref(),
            decision: noted.decision,
            resolved_from: noted.resolved_from.as_deref(),
            approval_id: noted.approval.as_deref(),
            permit: noted.permit,
            status: noted.status,
            outcome: noted.outcome,
            error: noted.error,
            trace_id: noted.context.as_ref().map(super::context::Context::trace_id),
            decide_ms: ms(Phase::Decide),
            held_ms: ms(Phase::Hold),
            upstream_ms: ms(Phase::Upstream),
        };
        Self {
            time: rfc3339(ended.begun_at_ns / 1_000_000),
            txn: &noted.txn,
            listener: &noted.listener,
            about,
            bytes_in: noted.bytes_in,
            bytes_out: noted.bytes_out,
            total_ms: milliseconds(ended.begun.elapsed()),
        }
    }
}

/// To the microsecond.
#[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
fn milliseconds(took: std::time::Duration) -> f64 {
    took.as_micros() as f64 / 1_000.0
}

enum Job {
    Line(Vec<u8>),
    Reopen,
    Flush(oneshot::Sender<()>),
}

/// The way to the thread that writes.
pub struct AccessLog {
    queue: SyncSender<Job>,
    dropped: IntCounter,
}

impl AccessLog {
    /// Opens it, and starts the thread, which ends with this value.
    pub(super) fn open(to: &To, metrics: &Metrics) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let (written, dropped) =
            (metrics.seen.access_lines_written.clone(), metrics.seen.access_lines_dropped.clone());
        let writer = Writer {
            out: open(to)?,
            to: to.clone(),
            lines: Vec::new(),
            count: 0,
            written,
            dropped: dropped.clone(),
            failing: false,
        };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&jobs))?;
        Ok(Self { queue, dropped })
    }

    /// Writes a line, unless too many wait already.
    pub(super) fn write(&self, line: &Line<'_>) {
        let Ok(mut text) = serde_json::to_vec(line) else { return self.dropped.inc() };
        text.push(b'\n');
        if self.queue.try_send(Job::Line(text)).is_err() {
            self.dropped.inc();
        }
    }

    /// Opens the file anew: the old one was moved away.
    pub fn reopen(&self) {
        // A full queue is one that a slow disk keeps full: the next SIGHUP will do.
        let _ = self.queue.try_send(Job::Reopen);
    }

    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let queue = self.queue.clone();
        let sent = tokio::task::spawn_blocking(move || queue.send(Job::Flush(done)));
        if sent.await.is_ok_and(|sent| sent.is_ok()) {
            // An error means that the thread is gone, and what it had with it.
            let _ = flushed.await;
        }
    }
}

fn open(to: &To) -> std::io::Result<Box<dyn Write + Send>> {
    Ok(match to {
        To::Stdout => Box::new(std::io::stdout()),
        To::Stderr => Box::new(std::io::stderr()),
        To::File(path) => Box::new(append(path)?),
    })
}

/// For its owner and its group: it says who did what.
fn append(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

struct Writer {
    out: Box<dyn Write + Send>,
    to: To,
    /// Whole lines, and how many, for the next write.
    lines: Vec<u8>,
    count: u64,
    written: IntCounter,
    dropped: IntCounter,
    failing: bool,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            self.work(job);
            // What came meanwhile goes into the same write.
            while self.lines.len() < WRITE_MAX
                && let Ok(job) = jobs.try_recv()
            {
                self.work(job);
            }
            self.write();
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Line(line) => {
                self.lines.extend_from_slice(&line);
                self.count += 1;
            }
            Job::Reopen => {
                self.write();
                let opened = open(&self.to).map(|out| self.out = out);
                self.note(&opened);
            }
            Job::Flush(done) => {
                self.write();
                // Whoever waited may have given up.
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self) {
        if self.count == 0 {
            return;
        }
        // What failed may have left the beginning of a line.
        let start: &[u8] = if self.failing { b"\n" } else { b"" };
        let result = self.out.write_all(start).and_then(|()| self.out.write_all(&self.lines));
        let result = result.and_then(|()| self.out.flush());
        if result.is_ok() {
            self.written.inc_by(self.count);
        } else {
            self.dropped.inc_by(self.count);
        }
        self.note(&result);
        self.lines.clear();
        self.count = 0;
    }

    /// Says once that it fails, and once that it works again.
    fn note(&mut self, result: &std::io::Result<()>) {
        match result {
            Err(error) if !self.failing => tracing::error!(%error, "the access log cannot be written"),
            Ok(()) if self.failing => tracing::info!("the access log is written again"),
            _ => {}
        }
        self.failing = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::trail::Noted;
    use super::*;

    fn write(log: &AccessLog) {
        let noted = Noted { txn: "txn_1".to_owned(), listener: "127.0.0.1:8080".into(), ..Noted::default() };
        log.write(&Line::of(&Ended { begun: Instant::now(), begun_at_ns: 0, noted: &noted }));
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_nobody_waits() {
        // Nobody writes.
        let (queue, _jobs) = sync_channel(2);
        let dropped = Metrics::new().unwrap().seen.access_lines_dropped;
        let log = AccessLog { queue, dropped: dropped.clone() };
        (0..5).for_each(|_| write(&log));
        assert_eq!(dropped.get(), 3);
    }

    #[tokio::test]
    async fn what_the_disk_does_not_take_is_not_counted_as_written() {
        let metrics = Metrics::new().unwrap();
        let log = AccessLog::open(&To::File("/dev/full".into()), &metrics).unwrap();
        (0..3).for_each(|_| write(&log));
        log.flush().await;
        assert_eq!(
            (metrics.seen.access_lines_written.get(), metrics.seen.access_lines_dropped.get()),
            (0, 3)
        );
    }
}
