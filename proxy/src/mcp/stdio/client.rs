//! The client's side: what is said to it goes to standard output, one line a message. Written by a thread of
//! its own: a client that does not read must not keep the process from ending.

use std::io::Write;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::client::Gone;

/// Whoever started us.
pub(super) struct Client {
    lines: mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>,
    /// Has ended when nothing can be written any more.
    gone: watch::Receiver<()>,
}

impl Client {
    pub(super) fn new(mut out: impl Write + Send + 'static) -> Self {
        let (lines, mut said) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>(1);
        let (open, gone) = watch::channel(());
        std::thread::spawn(move || {
            while let Some((line, done)) = said.blocking_recv() {
                if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                    break;
                }
                // Whoever waited for it may have given up.
                let _ = done.send(());
            }
            drop(open);
        });
        Self { lines, gone }
    }

    /// Says a message.
    pub(super) async fn say(&self, message: &Value) -> Result<(), Gone> {
        self.line(message.to_string().into_bytes()).await
    }

    /// Hands a line on. It is written when this returns.
    pub(super) async fn line(&self, mut line: Vec<u8>) -> Result<(), Gone> {
        line.push(b'\n');
        let (done, written) = oneshot::channel();
        self.lines.send((line, done)).await.map_err(|_| Gone)?;
        written.await.map_err(|_| Gone)
    }

    /// Resolves when the client does not read any more.
    pub(super) async fn gone(&self) {
        // Nothing is ever sent: only the end is heard.
        let _ = self.gone.clone().changed().await;
    }
}
