//! Hears of what other backends committed on a shared database, and tells those who wait here.
//!
//! PostgreSQL says an org's name when its feed has grown; where each feed ends is also looked up now and then, since
//! a notification may be lost with its connection. Either way the table is read on from what was seen last: an item is
//! told once, in its order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use oakallow_policy::id::Name;
use sqlx::postgres::PgListener;
use tokio::time::MissedTickBehavior;

use crate::state::App;
use crate::store::{Db, StoreError, feed};

/// How long a change stays unheard of at most when its notification is lost.
const POLL: Duration = Duration::from_millis(500);
/// Lines that are read at once.
const PAGE: u32 = 256;

/// What was told of each org.
pub(crate) struct Tail {
    seen: HashMap<Name, i64>,
}

impl Tail {
    /// From now on. Begun before anybody can wait, so that nothing falls between.
    pub(crate) async fn begin(db: &Db) -> Result<Self, StoreError> {
        let heads = feed::heads(&mut db.read_across().await?).await?;
        Ok(Self { seen: heads.into_iter().collect() })
    }

    /// Runs until the backend stops.
    pub(crate) async fn run(mut self, app: Arc<App>) {
        loop {
            let heard = async {
                match app.db.listener().await? {
                    Some(listener) => self.follow(&app, listener).await,
                    // Nobody else serves this database.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = app.stopped() => return,
                ended = heard => {
                    if let Err(error) = ended {
                        tracing::warn!(%error, "the feed of the database is not heard; it will be tried again");
                    }
                }
            }
            tokio::select! {
                () = app.stopped() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Ends when the connection does.
    async fn follow(&mut self, app: &App, listener: PgListener) -> Result<(), StoreError> {
        let mut heard = listener.into_stream();
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                said = heard.next() => match said {
                    Some(Ok(said)) => {
                        if let Ok(org) = Name::new(said.payload()) {
                            self.tell(app, &org, i64::MAX).await?;
                        }
                    }
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(()),
                },
                _ = poll.tick() => self.look(app).await?,
            }
        }
    }

    /// Catches up with every org.
    async fn look(&mut self, app: &App) -> Result<(), StoreError> {
        let heads = feed::heads(&mut app.db.read_across().await?).await?;
        for (org, head) in heads {
            if self.seen.get(&org).is_none_or(|seen| *seen < head) {
                self.tell(app, &org, head).await?;
            }
        }
        Ok(())
    }

    /// Tells what an org's feed has after what was seen. `head`: it reaches to there, though the lines may have been
    /// trimmed.
    async fn tell(&mut self, app: &App, org: &Name, head: i64) -> Result<(), StoreError> {
        let seen = self.seen.entry(org.clone()).or_insert(0);
        loop {
            let items = feed::after(&mut app.db.read(org).await?, org, *seen, PAGE).await?;
            let full = items.len() == PAGE as usize;
            for item in items {
                *seen = item.seq;
                app.feed.publish(item);
            }
            if !full {
                break;
            }
        }
        if head != i64::MAX {
            *seen = head.max(*seen);
        }
        Ok(())
    }
}
