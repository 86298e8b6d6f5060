//! A tool server that takes its time, or waits until it is let, and counts the calls that are with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The server; ends with this value.
pub(crate) struct Slow {
    pub(crate) url: String,
    counted: Counted,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Counted {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
    open: watch::Receiver<bool>,
    time: Duration,
}

impl Slow {
    /// Answers nothing before [`Slow::open`].
    pub(crate) async fn shut() -> Self {
        Self::start(false, Duration::ZERO).await
    }

    /// Each call takes this long.
    pub(crate) async fn taking(time: Duration) -> Self {
        Self::start(true, time).await
    }

    async fn start(is_open: bool, time: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (open, opened) = watch::channel(is_open);
        let [now, most, all] = [(); 3].map(|()| Arc::default());
        let counted = Counted { now, most, all, open: opened, time };
        let router = Router::new().fallback(slowly).with_state(counted.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, counted, open, task }
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Calls that are with it now.
    pub(crate) fn now(&self) -> usize {
        self.counted.now.load(Ordering::SeqCst)
    }

    /// The most that were with it at one time.
    pub(crate) fn most(&self) -> usize {
        self.counted.most.load(Ordering::SeqCst)
    }

    /// All that reached it.
    pub(crate) fn all(&self) -> usize {
        self.counted.all.load(Ordering::SeqCst)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn slowly(State(mut counted): State<Counted>) -> &'static str {
    counted.all.fetch_add(1, Ordering::SeqCst);
    let now = counted.now.fetch_add(1, Ordering::SeqCst) + 1;
    counted.most.fetch_max(now, Ordering::SeqCst);
    let _ = counted.open.wait_for(|open| *open).await;
    tokio::time::sleep(counted.time).await;
    counted.now.fetch_sub(1, Ordering::SeqCst);
    "{}"
}
