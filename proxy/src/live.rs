//! The configuration as it is now: what a reload replaces, and what is made of it. A request goes to its end with
//! the one that it began with.

use std::collections::HashMap;
use std::sync::Arc;

use oakallow_policy::id::Name;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::forward::{LinkError, Upstream};
use crate::metrics::Metrics;
use crate::redact::Redactor;
use crate::route::{Route, RouteKind};

/// One configuration, and what is made of it.
pub struct Live {
    /// As configured.
    pub config: Config,
    /// What hides secrets.
    pub redactor: Redactor,
    /// The way to each route's tool server.
    pub upstreams: HashMap<Name, Upstream>,
    /// Bounds how many released calls are with the tool servers at one time.
    pub releases: Arc<Semaphore>,
}

impl Live {
    /// Of the configuration that a proxy starts with.
    pub fn new(config: Config, redaction_key: Vec<u8>, metrics: &Metrics) -> Result<Self, LinkError> {
        let upstream = |route: &Arc<Route>| Ok((route.name.clone(), Upstream::new(route, metrics)?));
        Ok(Self {
            redactor: Redactor::new(redaction_key, &config.redact),
            upstreams: by_http(&config).map(upstream).collect::<Result<_, LinkError>>()?,
            releases: Arc::new(Semaphore::new(config.limits.releases_max)),
            config,
        })
    }

    /// Of another one. What is the same in both stays: the connections to tool servers, and the released calls
    /// that are with them.
    pub fn followed_by(
        &self,
        mut config: Config,
        redaction_key: Vec<u8>,
        metrics: &Metrics,
    ) -> Result<Self, LinkError> {
        for route in &mut config.routes {
            if let Some(same) = self.config.routes.iter().find(|known| *known == route) {
                *route = same.clone();
            }
        }
        let upstream = |route: &Arc<Route>| {
            let known = self.config.routes.iter().any(|known| Arc::ptr_eq(known, route));
            let known = self.upstreams.get(&route.name).filter(|_| known).cloned();
            Ok((route.name.clone(), known.map_or_else(|| Upstream::new(route, metrics), Ok)?))
        };
        let upstreams = by_http(&config).map(upstream).collect::<Result<_, LinkError>>()?;
        let places = (self.config.limits.releases_max, config.limits.releases_max);
        resize(&self.releases, places);
        Ok(Self {
            redactor: Redactor::new(redaction_key, &config.redact),
            upstreams,
            releases: self.releases.clone(),
            config,
        })
    }
}

/// Calls that are with the tool servers keep their places. With fewer places in all, nobody gets one that becomes free
/// before there are no more than that.
fn resize(releases: &Arc<Semaphore>, (before, after): (usize, usize)) {
    releases.add_permits(after.saturating_sub(before));
    let surplus = before.saturating_sub(after);
    let taken = surplus - releases.forget_permits(surplus);
    if let (1.., Ok(taken)) = (taken, u32::try_from(taken)) {
        let releases = releases.clone();
        // In line before whoever comes from now on.
        tokio::spawn(async move {
            if let Ok(places) = releases.acquire_many_owned(taken).await {
                places.forget();
            }
        });
    }
}

fn by_http(config: &Config) -> impl Iterator<Item = &Arc<Route>> {
    config.routes.iter().filter(|r| r.kind != RouteKind::Stdio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_that_are_taken_count_whatever_the_number_becomes() {
        let releases = Arc::new(Semaphore::new(3));
        let place = || releases.clone().try_acquire_owned().ok();
        let (first, second) = (place(), place());
        resize(&releases, (3, 1));
        assert!(place().is_none(), "two are taken of one");
        // The one in line stands behind the places that are to go.
        tokio::task::yield_now().await;
        let next = tokio::spawn(releases.clone().acquire_owned());
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!next.is_finished() && place().is_none(), "one is taken of one");
        drop(second);
        let third = next.await.unwrap().unwrap();
        assert!(place().is_none());
        resize(&releases, (1, 2));
        let fourth = place();
        assert!(fourth.is_some() && place().is_none(), "two are taken of two");
        // Fewer, and more again before the places that are to go are free.
        resize(&releases, (2, 1));
        resize(&releases, (1, 3));
        tokio::task::yield_now().await;
        let fifth = place();
        assert!(fifth.is_some() && place().is_none(), "three are taken of three");
        drop((third, fourth, fifth));
        assert_eq!(releases.available_permits(), 3);
    }
}
