//! Whose session is whose, and which calls wait in it.
//!
//! A session id alone must not open somebody else's session. The id that a client gets is the tool
//! server's with a tag in front, which binds it to the caller under a key of the audience: every proxy of
//! that audience can check it, after a restart too, and none has to remember it.
//!
//! Where a tool server has several endpoints, the one that began the session stands between the tag and its
//! id, and is bound with it: the session's requests go there and nowhere else.
//!
//! When the audience's key is rotated, the proxy that handed an id out still knows it; any other says that
//! there is no such session, and the client begins a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use oakallow_policy::canonical::{base64url, unbase64url};
use oakallow_policy::id::Name;
use oakallow_policy::token::TokenKey;
use serde_json::Value;
use sha2::Sha256;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::forward::Upstream;
use crate::identity::Caller;

/// The header that names a session.
pub(super) const SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");
/// Longest id: some servers put a signed token there.
const ID_BYTES_MAX: usize = 4_096;
/// 22 characters of base64url.
const TAG_BYTES: usize = 16;
/// What a tag is for: each has a key of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// A session's id.
    Session,
    /// A state that a client brings back.
    RequestState,
}

impl Purpose {
    /// Domain separation of the key (RFC 5869).
    const fn info(self) -> &'static [u8] {
        match self {
            Self::Session => b"oakallow/mcp-session/v1",
            Self::RequestState => b"oakallow/request-state/v1",
        }
    }
}
const SESSIONS_MAX: u64 = 100_000;
const SESSION_IDLE_MAX: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    principal: Name,
    tenant: Option<Name>,
}

impl Owner {
    pub(super) fn of(caller: &Caller) -> Self {
        Self { principal: caller.principal.clone(), tenant: caller.tenant.clone() }
    }

    /// Over this owner and the text.
    fn mac(&self, key: &TokenKey, purpose: Purpose, text: &str) -> Option<Hmac<Sha256>> {
        let mut derived = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, key.expose()).expand(purpose.info(), derived.as_mut_slice()).ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(derived.as_slice()).ok()?;
        let tenant = self.tenant.as_ref().map(Name::as_str);
        // Each part with its length, so that no two owners and ids make the same bytes.
        for part in [Some(self.principal.as_str()), tenant, Some(text)] {
            mac.update(&part.map_or(u64::MAX, |p| p.len() as u64).to_be_bytes());
            mac.update(part.unwrap_or_default().as_bytes());
        }
        Some(mac)
    }

    /// What shows that a text is this owner's.
    pub(super) fn tag(&self, key: &TokenKey, purpose: Purpose, text: &str) -> Option<String> {
        let mac = self.mac(key, purpose, text)?.finalize().into_bytes();
        mac.get(..TAG_BYTES).map(base64url)
    }

    /// Whether that is the tag, in a time that does not tell how much of it is.
    pub(super) fn has_tag(&self, key: &TokenKey, purpose: Purpose, text: &str, tag: &str) -> bool {
        let Some(tag) = unbase64url(tag).filter(|tag| tag.len() == TAG_BYTES) else { return false };
        self.mac(key, purpose, text).is_some_and(|mac| mac.verify_truncated_left(&tag).is_ok())
    }
}

/// Whether a text can be a session's id: visible ASCII (MCP, streamable HTTP), not too long.
fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The session that a request is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// None.
    No,
    /// The caller's: what stands behind the tag.
    Own(String),
    /// One that is not the caller's, or that nobody has.
    Foreign,
}

/// A session of the caller's, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// The id by which the tool server knows it.
    pub(super) id: String,
    /// The endpoint that it began at, where there is a choice.
    pub(super) endpoint: Option<usize>,
}

impl Session {
    /// Of what stands behind the tag. A session at an endpoint that is out, or not configured any more, has
    /// ended: its client begins a new one elsewhere.
    pub(super) fn at(upstream: &Upstream, text: String) -> Option<Self> {
        if !upstream.has_several() {
            return Some(Self { id: text, endpoint: None });
        }
        let (endpoint, id) = text.split_once('.')?;
        Some(Self { id: id.to_owned(), endpoint: Some(upstream.tagged(endpoint)?) })
    }
}

type HeldKey = (Owner, Name, Option<String>, String);

/// Sessions and held calls of all MCP routes.
pub struct Mcp {
    /// By the id that a client has, for when the key changes.
    handed_out: moka::sync::Cache<String, Owner>,
    held: Arc<Mutex<HashMap<HeldKey, Arc<Notify>>>>,
}

impl Default for Mcp {
    fn default() -> Self {
        let handed_out =
            moka::sync::Cache::builder().max_capacity(SESSIONS_MAX).time_to_idle(SESSION_IDLE_MAX).build();
        Self { handed_out, held: Arc::default() }
    }
}

impl Mcp {
    /// The session that a request names. An error says what is wrong with the field.
    pub(super) fn named(
        &self,
        headers: &HeaderMap,
        caller: &Caller,
        key: Option<&TokenKey>,
    ) -> Result<Named, &'static str> {
        let Some(value) = headers.get(SESSION_HEADER) else { return Ok(Named::No) };
        let id = value.to_str().ok().filter(|id| is_id(id));
        let id = id.ok_or("a session id has 1 to 4096 visible characters of ASCII")?;
        let owner = Owner::of(caller);
        let Some((tag, upstream_id)) = id.split_once('.') else { return Ok(Named::Foreign) };
        let fits = key.is_some_and(|key| owner.has_tag(key, Purpose::Session, upstream_id, tag));
        if fits || self.handed_out.get(id).is_some_and(|known| known == owner) {
            Ok(Named::Own(upstream_id.to_owned()))
        } else {
            Ok(Named::Foreign)
        }
    }

    /// Binds the session that an answer names to the caller whom it answers, and to the endpoint that it
    /// comes from. An id that could not be checked afterwards does not go out.
    pub(super) fn bind(
        &self,
        headers: &mut HeaderMap,
        endpoint: Option<&str>,
        caller: &Caller,
        key: Option<&TokenKey>,
    ) {
        let ids: Vec<HeaderValue> = headers.get_all(SESSION_HEADER).iter().cloned().collect();
        if ids.is_empty() {
            return;
        }
        headers.remove(SESSION_HEADER);
        let owner = Owner::of(caller);
        let bound = match ids.as_slice() {
            [id] => id.to_str().ok().filter(|id| is_id(id)).and_then(|id| {
                let id = endpoint.map_or_else(|| id.to_owned(), |endpoint| format!("{endpoint}.{id}"));
                let bound = format!("{}.{id}", owner.tag(key?, Purpose::Session, &id)?);
                is_id(&bound).then_some(bound)
            }),
            _ => None,
        };
        match bound.and_then(|bound| Some((HeaderValue::from_str(&bound).ok()?, bound))) {
            Some((value, bound)) => {
                self.handed_out.insert(bound, owner);
                headers.insert(SESSION_HEADER, value);
            }
            None => tracing::warn!("a tool server's session id cannot be passed on"),
        }
    }

    /// A call begins that `notifications/cancelled` may end while it is held.
    #[must_use]
    pub(super) fn cancellable(
        &self,
        route: &Name,
        session: Option<&str>,
        caller: &Caller,
        id: &Value,
    ) -> Cancellable {
        let key = (Owner::of(caller), route.clone(), session.map(str::to_owned), id.to_string());
        let notify = Arc::new(Notify::new());
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), notify.clone());
        Cancellable { held: self.held.clone(), key, notify }
    }

    /// Cancels a held call; whether there was one.
    pub(super) fn cancel(&self, route: &Name, session: Option<&str>, caller: &Caller, id: &Value) -> bool {
        let key = (Owner::of(caller), route.clone(), session.map(str::to_owned), id.to_string());
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let found = held.get(&key);
        if let Some(notify) = found {
            notify.notify_one();
        }
        found.is_some()
    }
}

/// A call that has not been forwarded yet; dropped when it is.
pub(super) struct Cancellable {
    held: Arc<Mutex<HashMap<HeldKey, Arc<Notify>>>>,
    key: HeldKey,
    notify: Arc<Notify>,
}

impl Cancellable {
    /// Is notified when the call is cancelled.
    #[must_use]
    pub(super) fn notify(&self) -> Arc<Notify> {
        self.notify.clone()
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // A second call under the same id has taken the place: it is not ours to clear.
        if held.get(&self.key).is_some_and(|n| Arc::ptr_eq(n, &self.notify)) {
            held.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn caller(principal: &str, tenant: Option<&str>) -> Caller {
        let name = |n| Name::new(n).unwrap();
        let credential = crate::identity::Credential::Key(String::new());
        Caller {
            credential,
            principal: name(principal),
            tenant: tenant.map(name),
            owner: None,
            token_email: None,
        }
    }

    fn key(byte: u8) -> TokenKey {
        TokenKey::from_bytes("1.tools".to_owned(), [byte; 32])
    }

    fn session(id: &str) -> HeaderMap {
        HeaderMap::from_iter([(SESSION_HEADER, HeaderValue::from_str(id).unwrap())])
    }

    /// The field as the client gets it.
    fn bound(mcp: &Mcp, caller: &Caller, key: &TokenKey) -> HeaderMap {
        let mut headers = session("s.1");
        mcp.bind(&mut headers, None, caller, Some(key));
        headers
    }

    #[test]
    fn a_session_is_its_owners_alone_in_every_proxy() {
        let (first, second) = (Mcp::default(), Mcp::default());
        let ada = caller("ada", Some("acme"));
        let headers = bound(&first, &ada, &key(1));
        assert_ne!(headers, session("s.1"));
        for mcp in [&first, &second] {
            assert_eq!(mcp.named(&headers, &ada, Some(&key(1))), Ok(Named::Own("s.1".to_owned())));
            for other in [
                caller("bob", Some("acme")),
                caller("ada", Some("globex")),
                caller("ada", None),
                caller("adaacme", None),
            ] {
                assert_eq!(mcp.named(&headers, &other, Some(&key(1))), Ok(Named::Foreign), "{other:?}");
            }
            assert_eq!(mcp.named(&session("s.1"), &ada, Some(&key(1))), Ok(Named::Foreign), "without a tag");
            assert_eq!(mcp.named(&HeaderMap::new(), &ada, Some(&key(1))), Ok(Named::No));
        }
    }

    #[test]
    fn after_the_key_has_changed_only_the_proxy_that_handed_it_out_knows_a_session() {
        let (first, second) = (Mcp::default(), Mcp::default());
        let (ada, bob) = (caller("ada", None), caller("bob", None));
        let headers = bound(&first, &ada, &key(1));
        assert_eq!(first.named(&headers, &ada, Some(&key(2))), Ok(Named::Own("s.1".to_owned())));
        assert_eq!(first.named(&headers, &bob, Some(&key(2))), Ok(Named::Foreign));
        assert_eq!(second.named(&headers, &ada, Some(&key(2))), Ok(Named::Foreign));
        assert_eq!(second.named(&headers, &ada, None), Ok(Named::Foreign));
    }

    #[test]
    fn what_cannot_be_an_id_is_none() {
        let (mcp, ada) = (Mcp::default(), caller("ada", None));
        for bad in ["", "a b", "a\tb", &"x".repeat(ID_BYTES_MAX + 1)] {
            assert!(mcp.named(&session(bad), &ada, Some(&key(1))).is_err(), "{bad:?}");
            let mut headers = session(bad);
            mcp.bind(&mut headers, None, &ada, Some(&key(1)));
            assert!(headers.is_empty(), "{bad:?}");
        }
        let mut two = session("a");
        two.append(SESSION_HEADER, HeaderValue::from_static("b"));
        mcp.bind(&mut two, None, &ada, Some(&key(1)));
        assert!(two.is_empty());
    }

    #[tokio::test]
    async fn only_its_owner_cancels_a_call_and_only_while_it_waits() {
        let (mcp, route) = (Mcp::default(), Name::new("r").unwrap());
        let (ada, bob) = (caller("ada", Some("acme")), caller("bob", Some("acme")));
        let call = mcp.cancellable(&route, Some("s"), &ada, &json!(1));
        assert!(!mcp.cancel(&route, Some("s"), &bob, &json!(1)));
        assert!(!mcp.cancel(&route, None, &ada, &json!(1)), "another session");
        assert!(!mcp.cancel(&route, Some("s"), &ada, &json!("1")), "the text is another id");
        assert!(mcp.cancel(&route, Some("s"), &ada, &json!(1)));
        call.notify().notified().await;
        drop(call);
        assert!(!mcp.cancel(&route, Some("s"), &ada, &json!(1)));
    }
}
