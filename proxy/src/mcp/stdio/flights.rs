//! The client's requests that are not answered yet: no two have the same id, and an answer of the tool
//! server's belongs to one that it was sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oakallow_policy::Permission;
use serde_json::Value;

use crate::call::mcp::Message;
use crate::identity::Caller;
use crate::outcome::Outcome;
use crate::policy::View;

/// A request that the tool server has, or is about to get.
pub(super) struct Flight {
    /// What was asked.
    pub(super) asked: Asked,
    /// Its intent, to be finished.
    pub(super) outcome: Outcome,
    /// By how much its progress is later: it was held, and the client was told so.
    pub(super) shift: f64,
    /// For a list of tools: who looks at it, and what decides.
    pub(super) listed: Option<(Caller, View)>,
}

/// What was asked, for when it has to be answered by us.
pub(super) struct Asked {
    /// The message.
    pub(super) message: Message,
    /// Its life in the audit log.
    pub(super) txn: String,
    /// What resolution said.
    pub(super) permission: Option<Permission>,
}

/// All of them, by id; `None`: not sent yet.
#[derive(Clone)]
pub(super) struct Flights {
    inner: Arc<Mutex<Inner>>,
    most: usize,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<String, Option<Flight>>,
    closed: bool,
}

/// Why a request has no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Another one with this id is not answered yet.
    Taken,
    /// There are too many.
    Full,
}

impl Flights {
    /// At most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { inner: Arc::default(), most }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the id for a request.
    pub(super) fn enter(&self, id: &Value) -> Result<Place, NoPlace> {
        let mut inner = self.lock();
        let key = id.to_string();
        if inner.by_id.contains_key(&key) {
            return Err(NoPlace::Taken);
        }
        if inner.by_id.len() >= self.most {
            return Err(NoPlace::Full);
        }
        inner.by_id.insert(key.clone(), None);
        Ok(Place { flights: self.clone(), key, departed: false })
    }

    /// The request with this id, if the tool server has it; the id is free then.
    pub(super) fn land(&self, id: &Value) -> Option<Flight> {
        self.take(&id.to_string(), |_| true)
    }

    /// The same, if it is the request with this `txn`.
    pub(super) fn land_if(&self, id: &Value, txn: &str) -> Option<Flight> {
        self.take(&id.to_string(), |flight| flight.asked.txn == txn)
    }

    fn take(&self, key: &str, is_meant: impl Fn(&Flight) -> bool) -> Option<Flight> {
        let mut inner = self.lock();
        inner.by_id.get(key)?.as_ref().filter(|flight| is_meant(flight))?;
        inner.by_id.remove(key)?
    }

    /// The `txn` of a request that the tool server has.
    pub(super) fn txn(&self, id: &Value) -> Option<String> {
        self.lock().by_id.get(&id.to_string())?.as_ref().map(|flight| flight.asked.txn.clone())
    }

    /// By how much progress under this token is later.
    pub(super) fn shift(&self, token: &Value) -> f64 {
        let inner = self.lock();
        let mut sent = inner.by_id.values().flatten();
        let held = sent.find(|f| f.shift > 0.0 && f.asked.message.progress_token() == Some(token));
        held.map_or(0.0, |flight| flight.shift)
    }

    /// Lets nothing depart any more, and returns what the tool server has not answered.
    pub(super) fn close(&self) -> Vec<Flight> {
        let mut inner = self.lock();
        inner.closed = true;
        let sent: Vec<String> =
            inner.by_id.iter().filter(|(_, flight)| flight.is_some()).map(|(key, _)| key.clone()).collect();
        sent.iter().filter_map(|key| inner.by_id.remove(key)?).collect()
    }
}

/// An id that is taken; free again when this is dropped, unless the request was sent.
pub(super) struct Place {
    flights: Flights,
    key: String,
    departed: bool,
}

impl Place {
    /// The request is about to be sent. Before it is: the answer may come at once. Gives it back when
    /// nothing is sent any more.
    pub(super) fn depart(mut self, flight: Flight) -> Result<(), Box<Flight>> {
        let mut inner = self.flights.lock();
        if inner.closed {
            return Err(Box::new(flight));
        }
        inner.by_id.insert(self.key.clone(), Some(flight));
        drop(inner);
        self.departed = true;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.departed {
            self.flights.lock().by_id.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_is_free_again_when_its_request_has_ended() {
        let flights = Flights::new(2);
        let first = flights.enter(&json!(1)).ok().unwrap();
        assert_eq!(flights.enter(&json!(1)).err(), Some(NoPlace::Taken));
        let text = flights.enter(&json!("1")).ok().unwrap();
        assert_eq!(flights.enter(&json!(2)).err(), Some(NoPlace::Full));
        assert!(flights.land(&json!(1)).is_none(), "it was not sent");
        drop((first, text));
        assert!(flights.enter(&json!(1)).is_ok());
    }
}
