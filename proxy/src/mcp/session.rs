//! Whose session is whose, and which calls wait in it.
//!
//! A session id alone must not open somebody else's session: it is bound to the caller that began it,
//! or, when this proxy has not seen it begin (a restart), to the first that the tool server lets in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use oakallow_policy::id::Name;
use serde_json::Value;
use tokio::sync::Notify;

use crate::identity::Caller;

/// The header that names a session.
const SESSION_HEADER: &str = "mcp-session-id";
const SESSIONS_MAX: u64 = 100_000;
const SESSION_IDLE_MAX: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    principal: Name,
    tenant: Option<Name>,
}

impl Owner {
    fn of(caller: &Caller) -> Self {
        Self { principal: caller.principal.clone(), tenant: caller.tenant.clone() }
    }
}

/// The session ids of a request or an answer, joined: more than one is its own, unknown, id.
fn session_id(headers: &HeaderMap) -> Option<Vec<u8>> {
    let ids: Vec<&[u8]> = headers.get_all(SESSION_HEADER).iter().map(http::HeaderValue::as_bytes).collect();
    if ids.is_empty() { None } else { Some(ids.join(&0)) }
}

type SessionKey = (Name, Vec<u8>);
type HeldKey = (Owner, Name, Option<Vec<u8>>, String);

/// Sessions and held calls of all MCP routes.
pub struct Mcp {
    owners: moka::sync::Cache<SessionKey, Owner>,
    held: Arc<Mutex<HashMap<HeldKey, Arc<Notify>>>>,
}

impl Default for Mcp {
    fn default() -> Self {
        let owners =
            moka::sync::Cache::builder().max_capacity(SESSIONS_MAX).time_to_idle(SESSION_IDLE_MAX).build();
        Self { owners, held: Arc::default() }
    }
}

impl Mcp {
    /// Whether the request names no session, or one that is not another caller's.
    #[must_use]
    pub fn may_enter(&self, route: &Name, headers: &HeaderMap, caller: &Caller) -> bool {
        let Some(id) = session_id(headers) else { return true };
        self.owners.get(&(route.clone(), id)).is_none_or(|owner| owner == Owner::of(caller))
    }

    /// The tool server has accepted a request: the session that it or its answer names is the caller's,
    /// unless it is somebody's already.
    pub fn bind(&self, route: &Name, headers: &HeaderMap, caller: &Caller) {
        if let Some(id) = session_id(headers) {
            self.owners.get_with((route.clone(), id), || Owner::of(caller));
        }
    }

    /// The session has ended.
    pub fn forget(&self, route: &Name, headers: &HeaderMap) {
        if let Some(id) = session_id(headers) {
            self.owners.invalidate(&(route.clone(), id));
        }
    }

    /// A call begins that `notifications/cancelled` may end while it is held.
    #[must_use]
    pub fn cancellable(&self, route: &Name, headers: &HeaderMap, caller: &Caller, id: &Value) -> Cancellable {
        let key = (Owner::of(caller), route.clone(), session_id(headers), id.to_string());
        let notify = Arc::new(Notify::new());
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), notify.clone());
        Cancellable { held: self.held.clone(), key, notify }
    }

    /// Cancels a held call; whether there was one.
    pub fn cancel(&self, route: &Name, headers: &HeaderMap, caller: &Caller, id: &Value) -> bool {
        let key = (Owner::of(caller), route.clone(), session_id(headers), id.to_string());
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let found = held.get(&key);
        if let Some(notify) = found {
            notify.notify_one();
        }
        found.is_some()
    }
}

/// A call that has not been forwarded yet; dropped when it is.
pub struct Cancellable {
    held: Arc<Mutex<HashMap<HeldKey, Arc<Notify>>>>,
    key: HeldKey,
    notify: Arc<Notify>,
}

impl Cancellable {
    /// Is notified when the call is cancelled.
    #[must_use]
    pub fn notify(&self) -> Arc<Notify> {
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
    use http::HeaderValue;
    use serde_json::json;

    fn caller(principal: &str, tenant: &str) -> Caller {
        let name = |n| Name::new(n).unwrap();
        Caller { key_id: "key_1".to_owned(), principal: name(principal), tenant: Some(name(tenant)) }
    }

    fn session(id: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(SESSION_HEADER), HeaderValue::from_static(id))])
    }

    #[test]
    fn a_session_is_its_owners_alone() {
        let (mcp, route) = (Mcp::default(), Name::new("r").unwrap());
        let (ada, bob) = (caller("ada", "acme"), caller("bob", "acme"));
        assert!(mcp.may_enter(&route, &session("s"), &bob), "not bound yet");
        mcp.bind(&route, &session("s"), &ada);
        mcp.bind(&route, &session("s"), &bob);
        assert!(mcp.may_enter(&route, &session("s"), &ada));
        assert!(!mcp.may_enter(&route, &session("s"), &bob));
        assert!(!mcp.may_enter(&route, &session("s"), &caller("ada", "globex")), "another tenant");
        assert!(mcp.may_enter(&route, &HeaderMap::new(), &bob));
        mcp.forget(&route, &session("s"));
        assert!(mcp.may_enter(&route, &session("s"), &bob));
    }

    #[tokio::test]
    async fn only_its_owner_cancels_a_call_and_only_while_it_waits() {
        let (mcp, route) = (Mcp::default(), Name::new("r").unwrap());
        let (ada, bob) = (caller("ada", "acme"), caller("bob", "acme"));
        let call = mcp.cancellable(&route, &session("s"), &ada, &json!(1));
        assert!(!mcp.cancel(&route, &session("s"), &bob, &json!(1)));
        assert!(!mcp.cancel(&route, &session("s"), &ada, &json!("1")), "the text is another id");
        assert!(mcp.cancel(&route, &session("s"), &ada, &json!(1)));
        call.notify().notified().await;
        drop(call);
        assert!(!mcp.cancel(&route, &session("s"), &ada, &json!(1)));
    }
}
