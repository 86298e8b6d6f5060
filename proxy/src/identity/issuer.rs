//! The keys of issuers: read in the background, and once more when a token names one that is not known. No token
//! makes the proxy ask more often than that, and keys that cannot be read any more are not good for ever.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use prometheus::IntCounterVec;
use serde::Deserialize;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::app::App;
use crate::clock;
use crate::config::issuers::is_safe;
use crate::config::{Issuer, KeySource};
use crate::identity::audience::Audiences;
use crate::identity::inquiry::{self, Way};
use crate::identity::keys::{self, Key};
use crate::identity::token::{self, Flaw, Unverified, Verified};
use crate::refusal::Refusal;
use crate::seldom::Seldom;

/// Tokens with unknown keys make us ask this often at most.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);
/// After a failure the next try is not far.
const RETRY: Duration = Duration::from_secs(10);
/// How often the log tells of tokens that are refused for one reason.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How often a file is looked at.
const FILE_EVERY: Duration = Duration::from_secs(2);

/// Why there is no way to ask issuers.
#[derive(Debug, thiserror::Error)]
#[error("the client for the keys of issuers: {0}")]
pub struct IssuerError(#[from] reqwest::Error);

/// All issuers.
pub struct Issuers {
    sources: Vec<Source>,
    refusals: Refusals,
}

/// Tokens that were refused: counted, and told now and then.
struct Refusals {
    count: IntCounterVec,
    told: std::sync::Mutex<HashMap<(String, Flaw), Seldom>>,
}

/// One issuer, and its keys.
struct Source {
    issuer: Issuer,
    way: Way,
    keys: ArcSwapOption<Known>,
    /// When the keys were last asked for because of a token; whoever asks holds it.
    asked: Mutex<Option<Instant>>,
    /// Told when the keys change.
    trust: watch::Sender<()>,
}

struct Known {
    keys: Vec<Key>,
    at: UnixMs,
}

/// What OpenID Connect Discovery says.
#[derive(Deserialize)]
struct Description {
    issuer: String,
    jwks_uri: String,
}

impl Issuers {
    /// Of the configuration; no keys are read yet.
    /// Whenever an issuer has other keys, `trust` is told.
    pub fn new(
        issuers: &[Issuer],
        refused: IntCounterVec,
        trust: &watch::Sender<()>,
    ) -> Result<Self, IssuerError> {
        let http = inquiry::client()?;
        let sources = issuers.iter().map(|issuer| Source::new(issuer, &http, trust)).collect();
        Ok(Self { sources, refusals: Refusals { count: refused, told: std::sync::Mutex::default() } })
    }

    /// Whether a token is from one of them, good or not.
    pub(super) fn has_issued(&self, token: &str) -> bool {
        let named = || token::claimed_issuer(token);
        !self.sources.is_empty()
            && named().is_some_and(|named| self.sources.iter().any(|s| s.issuer.issuer == named))
    }

    /// What a token says, if it is a good one of an issuer among `among` and for one of these audiences. Without
    /// them any of the issuer's will do, and only the keys that are known now: that is for the record.
    pub(super) async fn verify(
        &self,
        token: &str,
        among: &[Name],
        audiences: Option<Audiences<'_>>,
    ) -> Result<Verified, Refusal> {
        let parsed = Unverified::parse(token);
        let theirs = |s: &&Source| among.contains(&s.issuer.name);
        let named = parsed.as_ref().and_then(Unverified::issuer);
        let source = self.sources.iter().filter(theirs).find(|s| named == Some(&s.issuer.issuer));
        let found = match (&parsed, source) {
            (None, _) => Err(Flaw::Form),
            (Some(_), None) => Err(Flaw::Issuer),
            (Some(parsed), Some(source)) => source.verify(parsed, audiences).await?,
        };
        found.map_err(|flaw| {
            // Who asks for the record only has heard already.
            if audiences.is_some() {
                self.refusals.tell(source.map_or("", |source| &source.issuer.name), flaw);
            }
            Refusal::Unauthenticated
        })
    }

    /// Whether a token that was good still is: it has not ended, and its issuer still has the key.
    pub(super) fn still_stand_for(&self, token: &Verified) -> bool {
        let source = self.sources.iter().find(|s| s.issuer.name == token.issuer);
        let keys = source.and_then(Source::current);
        token.is_current(clock::now_ms())
            && keys.is_some_and(|known| known.keys.iter().any(|key| key.thumbprint == token.key))
    }

    /// Until when a token that is good now stays so by itself: until it ends, or its issuer's keys are too old.
    pub(super) fn stand_for_until(&self, token: &Verified) -> UnixMs {
        let source = self.sources.iter().find(|s| s.issuer.name == token.issuer);
        token.end().min(source.map_or(0, Source::keys_end))
    }

    /// Keeps the keys of all of them up to date.
    pub async fn follow(app: Arc<App>) {
        let each = app.issuers.sources.iter().map(|source| source.follow(&app));
        futures_util::future::join_all(each).await;
    }
}

/// Asks each issuer for its keys, as a proxy would; why they cannot be read.
pub async fn examine(issuers: &[Issuer]) -> Result<Vec<(Name, Result<(), String>)>, IssuerError> {
    let (http, nobody) = (inquiry::client()?, watch::Sender::new(()));
    let ask = async |issuer: &Issuer| (issuer.name.clone(), Source::new(issuer, &http, &nobody).read().await);
    Ok(futures_util::future::join_all(issuers.iter().map(ask)).await)
}

impl Refusals {
    /// Whoever sends tokens does not fill the log: a line for each issuer and flaw, now and then.
    fn tell(&self, issuer: &str, flaw: Flaw) {
        self.count.with_label_values(&[issuer, flaw.as_str()]).inc();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let seldom = told.entry((issuer.to_owned(), flaw)).or_insert(const { Seldom::once_in(TELL_EVERY) });
        if seldom.tells().is_some() {
            tracing::warn!(
                issuer,
                reason = flaw.as_str(),
                "tokens are refused; told once in {} s, counted in oakallow_tokens_refused_total",
                TELL_EVERY.as_secs()
            );
        }
    }
}

impl Source {
    fn new(issuer: &Issuer, http: &reqwest::Client, trust: &watch::Sender<()>) -> Self {
        let (keys, asked) = (ArcSwapOption::empty(), Mutex::new(None));
        let way = Way::new(http, issuer.ca.clone());
        Self { issuer: issuer.clone(), way, keys, asked, trust: trust.clone() }
    }

    /// The keys, unless they are too old to be believed.
    fn current(&self) -> Option<Arc<Known>> {
        self.keys.load_full().filter(|known| clock::now_ms() < self.end_of(known))
    }

    fn keys_end(&self) -> UnixMs {
        self.keys.load().as_ref().map_or(0, |known| self.end_of(known))
    }

    fn end_of(&self, known: &Known) -> UnixMs {
        known.at.saturating_add(self.issuer.keys_age_max_s.saturating_mul(1000))
    }

    async fn verify(
        &self,
        token: &Unverified<'_>,
        audiences: Option<Audiences<'_>>,
    ) -> Result<Result<Verified, Flaw>, Refusal> {
        if let Err(flaw) = token.is_for((&self.issuer, audiences), clock::now_ms()) {
            return Ok(Err(flaw));
        }
        let verify = |known: &Known| {
            let key = keys::meant(&known.keys, token.kid.as_deref(), token.algorithm)?;
            Some(token.verified(&self.issuer, key))
        };
        if let Some(found) = self.current().as_deref().and_then(verify) {
            return Ok(found);
        }
        if audiences.is_some() {
            self.ask_for_unknown().await;
        }
        let known = self.current().ok_or_else(|| Refusal::IssuerUnavailable(self.issuer.name.clone()))?;
        Ok(verify(&known).unwrap_or(Err(Flaw::Key)))
    }

    async fn follow(&self, app: &App) {
        let every = match self.issuer.keys {
            KeySource::File(_) => FILE_EVERY,
            _ => Duration::from_secs(self.issuer.keys_refresh_s),
        };
        let mut failed = false;
        loop {
            let result = {
                let _one_at_a_time = self.asked.lock().await;
                self.read().await
            };
            let name = self.issuer.name.as_str();
            if let Err(problem) = &result
                && !failed
            {
                tracing::warn!(issuer = name, %problem, "the keys of an issuer cannot be read: those that are known stay for a while");
            }
            failed = result.is_err();
            let label = if failed { "failed" } else { "read" };
            app.metrics.entrance.issuer_key_reads.with_label_values(&[name, label]).inc();
            tokio::time::sleep(if failed { every.min(RETRY) } else { every }).await;
        }
    }

    /// One at a time; who waited for another finds what that one read.
    async fn ask_for_unknown(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < UNKNOWN_KEY_PAUSE) {
            return;
        }
        *asked = Some(Instant::now());
        if let Err(problem) = self.read().await {
            tracing::debug!(issuer = %self.issuer.name, %problem, "the keys of an issuer cannot be read");
        }
    }

    /// What the issuer has now takes the place of what it had: a key that it withdrew is gone.
    async fn read(&self) -> Result<(), String> {
        let bytes = match &self.issuer.keys {
            KeySource::File(file) => tokio::fs::read(file).await.map_err(|e| e.to_string())?,
            KeySource::Url(url) => self.way.get(url).await?,
            KeySource::Discovery(url) => {
                let bytes = self.way.get(url).await?;
                let said: Description = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
                if said.issuer != self.issuer.issuer {
                    return Err("the description is another issuer's".to_owned());
                }
                is_safe(&said.jwks_uri)?;
                self.way.get(&said.jwks_uri).await?
            }
        };
        let keys = keys::parse(&bytes)?;
        let known = Known { keys, at: clock::now_ms() };
        let thumbprints = |known: &Known| known.keys.iter().map(|key| key.thumbprint).collect::<Vec<_>>();
        let now = thumbprints(&known);
        let before = self.keys.swap(Some(Arc::new(known)));
        if before.is_none_or(|before| thumbprints(&before) != now) {
            self.trust.send_replace(());
        }
        Ok(())
    }
}
