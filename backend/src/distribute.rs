//! What proxies are told: signed bundles, and a feed that says when to fetch one.
//!
//! A proxy gets what it may serve and nothing else: its audiences' tools and token keys, its tenants'
//! rules, and the hashes of keys that can name one of its tenants. The only place that knows how the
//! fan-out travels.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::response::sse::Event;
use futures_util::stream::{self, Stream};
use oakallow_policy::canonical::base64url;
use oakallow_policy::id::Name;
use oakallow_policy::ruleset::{KillSwitch, OrgPolicy};
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::wire::{
    AudienceKey, Bundle, BundleScope, FeedEvent, KeyRecord, Purpose, Secret, Signed, StillCurrent, Tenancy,
};
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

use crate::decide;
use crate::error::ApiError;
use crate::feed::{Change, FeedItem};
use crate::state::App;
use crate::store::keys::Key;
use crate::store::proxies::Proxy;
use crate::store::{self, Conn, StoreError};

/// The org's bundle for a proxy, or one tenant's rules; `None` when `known` is still the version.
pub(crate) async fn bundle(
    app: &App,
    proxy: &Proxy,
    tenant: Option<&Name>,
    known: impl Fn(u64) -> bool,
) -> Result<(u64, Option<Signed>), ApiError> {
    let mut db = app.db.snapshot(&proxy.org).await?;
    let version = store::orgs::versions(&mut db, &proxy.org).await?.policy;
    let scope = match tenant {
        Some(tenant) => {
            if !proxy.serves_tenant(Some(tenant)) {
                let detail = format!("This proxy does not serve tenant `{tenant}`.");
                return Err(ApiError::forbidden("tenant_not_allowed", detail));
            }
            if store::tenants::rules_version(&mut db, &proxy.org, tenant).await?.is_none() {
                return Err(ApiError::not_found("tenant", tenant));
            }
            if known(version) {
                return Ok((version, None));
            }
            let rules = store::rules::of_scope(&mut db, &proxy.org, Some(tenant)).await?;
            BundleScope::Tenant { tenant: tenant.clone(), rules }
        }
        None if known(version) => return Ok((version, None)),
        None => org_scope(app, proxy, &mut db).await?,
    };
    let bundle = Bundle { org: proxy.org.clone(), version, issued_at: app.now(), scope };
    let signed = seal(app, &mut db, &proxy.org, (Purpose::Bundle, &bundle)).await?;
    Ok((version, Some(signed)))
}

async fn org_scope(app: &App, proxy: &Proxy, db: &mut Conn) -> Result<BundleScope, ApiError> {
    let now = app.now();
    let policy = restrict(decide::org_policy(db, &proxy.org).await?, proxy);
    let keys = store::keys::callers(db, &proxy.org, now).await?;
    let keys = keys.iter().filter_map(|key| key_record(key, proxy).transpose()).collect::<Result<_, _>>()?;
    let mut audience_keys = Vec::new();
    for audience in &proxy.audiences {
        let held = app.vault.token_keys(db, &proxy.org, audience, now).await?;
        audience_keys.extend(held.iter().enumerate().map(|(i, key)| AudienceKey {
            audience: audience.clone(),
            kid: key.kid().to_owned(),
            key: Secret::new(base64url(key.expose())),
            current: i == 0,
        }));
    }
    Ok(BundleScope::Org { policy, keys, audience_keys })
}

/// Leaves out what the proxy has no part in. No decision of its calls depends on it.
fn restrict(mut policy: OrgPolicy, proxy: &Proxy) -> OrgPolicy {
    // A tool of another audience is an unregistered one here, listed or not.
    policy.tools.retain(|tool| proxy.serves_audience(&tool.audience));
    policy.pins.retain(|pin| proxy.serves_audience(&pin.audience));
    policy.tenants.retain(|tenant| proxy.serves_tenant(Some(tenant)));
    policy.kill_switches.retain(|switch| match switch {
        KillSwitch::Tenant(tenant) => proxy.serves_tenant(Some(tenant)),
        _ => true,
    });
    policy
}

/// A caller's key as this proxy may know it; `None` when it can name none of the proxy's tenants.
fn key_record(key: &Key, proxy: &Proxy) -> Result<Option<KeyRecord>, StoreError> {
    let tenancy = match (&key.tenancy, &proxy.tenants) {
        (tenancy, None) => tenancy.clone(),
        (Tenancy::One(tenant), Some(_)) if proxy.serves_tenant(Some(tenant)) => Tenancy::One(tenant.clone()),
        (Tenancy::One(_), Some(_)) => return Ok(None),
        (Tenancy::Some(own), Some(_)) => {
            let shared: Vec<Name> =
                own.iter().filter(|t| proxy.serves_tenant(Some(t.as_str()))).cloned().collect();
            if shared.is_empty() {
                return Ok(None);
            }
            Tenancy::Some(shared)
        }
        // Here it reaches no more than the proxy does, and has to say which.
        (Tenancy::Org, Some(served)) => Tenancy::Some(served.clone()),
    };
    Ok(Some(KeyRecord {
        sha256: key.hash.clone(),
        key_id: key.id.clone(),
        principal: store::name("keys", "agent", key.principal())?,
        tenancy,
        expires_at: key.expires_at,
    }))
}

async fn seal<T: Serialize>(
    app: &App,
    db: &mut Conn,
    org: &Name,
    (purpose, value): (Purpose, &T),
) -> Result<Signed, ApiError> {
    let signer = app.vault.bundle_key(db, org).await?;
    Signed::seal(purpose, value, &signer.kid, &signer.key).map_err(|e| ApiError::internal(&e))
}

/// One proxy's stream.
struct Listener {
    app: Arc<App>,
    proxy: Proxy,
    news: broadcast::Receiver<FeedItem>,
    /// Told up to here.
    seq: i64,
    ready: VecDeque<Event>,
    next_current: Instant,
}

/// The stream of events for a proxy: `current` first, then everything after `resume` (or from now on).
/// It ends when the backend stops or the proxy is removed.
pub(crate) async fn events(
    app: Arc<App>,
    proxy: Proxy,
    resume: Option<i64>,
) -> Result<impl Stream<Item = Result<Event, axum::Error>>, ApiError> {
    // Subscribed before the table is read: what is committed in between is seen twice, not never.
    let news = app.feed.subscribe();
    let mut db = app.db.read(&proxy.org).await?;
    let newest = store::feed::last_seq(&mut db, &proxy.org).await?;
    drop(db);
    let seq = resume.filter(|seq| (0..=newest).contains(seq)).unwrap_or(newest);
    let next_current = Instant::now();
    let mut listener = Listener { app, proxy, news, seq, ready: VecDeque::new(), next_current };
    listener.current().await?;
    listener.read_table().await?;
    let open = Open::new(Arc::clone(&listener.app));
    Ok(stream::unfold((listener, open), |(mut listener, open)| async move {
        let event = listener.next().await?;
        Some((Ok(event), (listener, open)))
    }))
}

/// Counts the stream while it is open.
struct Open(Arc<App>);

impl Open {
    fn new(app: Arc<App>) -> Self {
        app.metrics.streams.inc();
        Self(app)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.streams.dec();
    }
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.wait().await {
                Ok(true) => {}
                Ok(false) => return None,
                // The proxy reconnects and resumes where it was.
                Err(error) => {
                    tracing::warn!(proxy = self.proxy.id, code = error.code(), "a proxy's stream was ended");
                    return None;
                }
            }
        }
    }

    /// Waits until there is something to tell; false: the stream is over.
    async fn wait(&mut self) -> Result<bool, ApiError> {
        let current_is_due = tokio::select! {
            () = self.app.stopped() => return Ok(false),
            () = tokio::time::sleep_until(self.next_current) => true,
            news = self.news.recv() => match news {
                Ok(item) if item.org != self.proxy.org => return Ok(true),
                Ok(_) | Err(RecvError::Lagged(_)) => false,
                Err(RecvError::Closed) => return Ok(false),
            },
        };
        let mut db = self.app.db.read(&self.proxy.org).await?;
        let proxy = store::one::<Proxy>(&mut db, &self.proxy.org, &self.proxy.id).await?;
        drop(db);
        if proxy.is_none_or(|p| p.revoked_at.is_some()) {
            return Ok(false);
        }
        self.read_table().await?;
        if current_is_due {
            self.current().await?;
        }
        Ok(true)
    }

    /// Queues a signed word that the newest version is still the newest.
    async fn current(&mut self) -> Result<(), ApiError> {
        let mut db = self.app.db.snapshot(&self.proxy.org).await?;
        let org = &self.proxy.org;
        let version = store::orgs::versions(&mut db, org).await?.policy;
        let word = StillCurrent { org: org.clone(), version, at: self.app.now() };
        let signed = seal(&self.app, &mut db, org, (Purpose::StillCurrent, &word)).await?;
        drop(db);
        self.next_current = Instant::now() + self.app.config.current_interval;
        self.queue(&FeedEvent::Current(signed))
    }

    /// Queues what the table has after [`Listener::seq`].
    async fn read_table(&mut self) -> Result<(), ApiError> {
        const PAGE: u32 = 256;
        loop {
            let mut db = self.app.db.read(&self.proxy.org).await?;
            let items = store::feed::after(&mut db, &self.proxy.org, self.seq, PAGE).await?;
            drop(db);
            let full = items.len() == PAGE as usize;
            for item in items {
                self.seq = item.seq;
                if let Some(event) = self.concerns(item.change) {
                    self.queue(&event)?;
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// A change as this proxy hears of it.
    fn concerns(&self, change: Change) -> Option<FeedEvent> {
        match change {
            Change::Version { version, tenant } => {
                // A version of another's tenant is still a version; whose it is, is not told.
                let tenant = tenant.filter(|t| self.proxy.serves_tenant(Some(t)));
                Some(FeedEvent::Version { version, tenant })
            }
            Change::Approval { state, tenant, audience } => {
                let ours =
                    self.proxy.serves_audience(&audience) && self.proxy.serves_tenant(tenant.as_deref());
                ours.then_some(FeedEvent::Approval(state))
            }
        }
    }

    fn queue(&mut self, event: &FeedEvent) -> Result<(), ApiError> {
        let (name, data) = match event {
            FeedEvent::Version { version, tenant } => {
                ("version", serde_json::json!({"version": version, "tenant": tenant}).to_string())
            }
            FeedEvent::Current(signed) => ("current", text(signed)?),
            FeedEvent::Approval(state) => ("approval", text(state)?),
        };
        self.ready.push_back(Event::default().event(name).data(data).id(self.seq.to_string()));
        Ok(())
    }
}

fn text<T: Serialize>(value: &T) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|e| ApiError::internal(&e))
}

/// How long a join token is good for.
pub(crate) const JOIN_TOKEN_MS: UnixMs = 3600 * 1000;
