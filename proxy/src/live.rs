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
        let same = self.config.limits.releases_max == config.limits.releases_max;
        let releases = || Arc::new(Semaphore::new(config.limits.releases_max));
        Ok(Self {
            redactor: Redactor::new(redaction_key, &config.redact),
            upstreams: by_http(&config).map(upstream).collect::<Result<_, LinkError>>()?,
            releases: if same { self.releases.clone() } else { releases() },
            config,
        })
    }
}

fn by_http(config: &Config) -> impl Iterator<Item = &Arc<Route>> {
    config.routes.iter().filter(|r| r.kind != RouteKind::Stdio)
}
