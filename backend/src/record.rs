//! Audit events of the backend's own acts, in a few words.

use oakallow_policy::audit::{Event, EventData, EventType};
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::timestamp::rfc3339;
use serde_json::{Map, Value};

use crate::auth::Credential;
use crate::state::App;
use crate::store::{self, StoreError, Write};

/// A new event, as of now.
pub(crate) fn event(app: &App, kind: EventType, txn: Option<String>, data: EventData) -> Event {
    let now = app.now();
    Event { id: app.random.id(Kind::Event, now), kind, time: rfc3339(now), txn, data }
}

/// An administrative change: who, and what it says now.
pub(crate) struct Change<'a> {
    pub(crate) kind: EventType,
    pub(crate) org: &'a Name,
    /// The key or person who acts.
    pub(crate) actor: &'a str,
    pub(crate) tenant: Option<&'a Name>,
    pub(crate) tool: Option<&'a Name>,
    /// The thing as it is after the change; its id when it is gone.
    pub(crate) detail: Value,
}

impl<'a> Change<'a> {
    pub(crate) fn new(kind: EventType, org: &'a Name, actor: &'a str, detail: Value) -> Self {
        Self { kind, org, actor, tenant: None, tool: None, detail }
    }

    /// A change that this credential makes.
    pub(crate) fn by(who: &'a Credential, kind: EventType, detail: Value) -> Self {
        Self::new(kind, who.org(), who.principal(), detail)
    }

    pub(crate) fn tenant(self, tenant: Option<&'a Name>) -> Self {
        Self { tenant, ..self }
    }

    pub(crate) fn tool(self, tool: Option<&'a Name>) -> Self {
        Self { tool, ..self }
    }

    /// Makes a new policy version, and records it. `scope`: only that tenant's rules changed.
    pub(crate) async fn announce(
        self,
        app: &App,
        write: &mut Write,
        scope: Option<&Name>,
    ) -> Result<u64, StoreError> {
        let version = write.bump(self.org, scope).await?;
        self.record(app, write).await?;
        Ok(version)
    }

    /// [`Change::announce`], and with that the change is done.
    pub(crate) async fn publish(
        self,
        app: &App,
        mut write: Write,
        scope: Option<&Name>,
    ) -> Result<u64, StoreError> {
        let version = self.announce(app, &mut write, scope).await?;
        write.commit().await?;
        Ok(version)
    }

    /// Writes it in the transaction of the change itself.
    pub(crate) async fn record(self, app: &App, write: &mut Write) -> Result<(), StoreError> {
        let detail = match self.detail {
            Value::Object(members) => members,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        let data = EventData {
            principal: Some(self.actor.to_owned()),
            tenant: self.tenant.map(|t| t.as_str().to_owned()),
            tool: self.tool.map(|t| t.as_str().to_owned()),
            detail,
            ..EventData::default()
        };
        store::audit::record(write, self.org, app.now(), event(app, self.kind, None, data)).await
    }
}
