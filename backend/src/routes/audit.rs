//! The audit log: proxies' chains come in, readers search and export.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use oakallow_policy::audit::{EventData, EventType};
use oakallow_policy::id::Name;
use oakallow_policy::timestamp::{self, UnixMs};
use oakallow_policy::wire::{AuditAck, AuditBatch};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, json};

use crate::answer::Json;
use crate::auth::ProxyIdentity;
use crate::drafts;
use crate::error::ApiError;
use crate::extract::{Body, Page, Params, Segment, decode_cursor, foreign_cursor, page_limit};
use crate::keys::KeyKind;
use crate::ledger::{self, IngestError, ProxyChain};
use crate::record;
use crate::state::App;
use crate::store::audit::{self, Filter, StoredEvent};
use crate::store::{Db, StoreError};
use crate::viewer::Viewer;

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/audit", get(search))
        .route("/v1/audit/export", get(export))
        .route("/v1/proxies/{id}/audit", post(ingest))
}

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> Self {
        let detail = format!("{error}.");
        match error {
            IngestError::Signature => Self::forbidden("bad_signature", detail),
            IngestError::Gap { expected, .. } => {
                Self::conflict("audit_gap", detail).with("expected_seq", expected)
            }
            IngestError::Broken { seq, .. } => Self::conflict("audit_chain_broken", detail).with("seq", seq),
            IngestError::Head => Self::conflict("audit_head_mismatch", detail),
            IngestError::Store(e) => e.into(),
        }
    }
}

/// `POST /v1/proxies/{id}/audit`: takes a batch of the proxy's chain in, once.
pub(crate) async fn ingest(
    State(app): State<Arc<App>>,
    identity: ProxyIdentity,
    Segment(id): Segment,
    Body(batch): Body<AuditBatch>,
) -> Result<Json<AuditAck>, ApiError> {
    identity.must_be(&id)?;
    let org = identity.credential.org();
    let chain = ProxyChain { id: &id, public_key: &identity.proxy.public_key };
    let mut write = identity.credential.write(&app).await?;
    let taken = ledger::ingest(&mut write, org, &chain, &batch, app.now()).await;
    match taken {
        Ok(acknowledged_seq) => {
            drafts::sighted_by_proxy(&app, &mut write, org, &batch.events).await?;
            write.commit().await?;
            Ok(Json(AuditAck { acknowledged_seq }))
        }
        Err(error) => {
            // Nothing of the batch stays; the breach itself does.
            drop(write);
            if let IngestError::Broken { seq, hash, why } = &error {
                report_breach(&app, org, &id, (*seq, hash, why)).await?;
            }
            Err(error.into())
        }
    }
}

/// Records a breach: once for each event that was refused, however often it is sent.
pub(super) async fn report_breach(
    app: &Arc<App>,
    org: &Name,
    proxy: &str,
    breach: (u64, &str, &str),
) -> Result<(), StoreError> {
    let (seq, hash, why) = breach;
    tracing::error!(proxy, seq, why, "a proxy's audit chain is broken");
    let detail = json!({"proxy": proxy, "seq": seq, "sha256": hash});
    let detail = detail.as_object().cloned().unwrap_or_else(Map::new);
    let data = EventData {
        principal: Some(proxy.to_owned()),
        reason: Some(why.to_owned()),
        detail,
        ..EventData::default()
    };
    let mut event = record::event(app, EventType::ProxyChainBroken, None, data);
    let name = audit::hash_of(format!("chain-broken|{proxy}|{seq}|{hash}").as_bytes());
    event.id = format!("evt_{}", name.get(..26).unwrap_or(&name).to_uppercase());
    let mut write = app.write(org).await?;
    if !audit::exists(&mut write, org, &event.id).await? {
        audit::record(&mut write, org, app.now(), event).await?;
        write.commit().await?;
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchParams {
    from: Option<String>,
    to: Option<String>,
    #[serde(rename = "type")]
    kind: Option<EventType>,
    tenant: Option<String>,
    tool: Option<String>,
    agent: Option<String>,
    decision: Option<String>,
    approval: Option<String>,
    txn: Option<String>,
    text: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

impl SearchParams {
    fn filter(self) -> Result<(Filter, u32), ApiError> {
        let filter = Filter {
            from: time("from", self.from.as_deref())?,
            to: time("to", self.to.as_deref())?,
            kind: self.kind,
            tenant: self.tenant,
            tool: self.tool,
            principal: self.agent,
            decision: self.decision,
            approval: self.approval,
            txn: self.txn,
            text: self.text.filter(|t| !t.is_empty()),
            before: before(self.cursor.as_deref())?,
        };
        Ok((filter, page_limit(self.limit)))
    }
}

fn time(name: &str, text: Option<&str>) -> Result<Option<UnixMs>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    timestamp::parse_rfc3339(text).map(Some).ok_or_else(|| {
        ApiError::invalid_request(format!("{name}: an RFC 3339 time, like 2026-01-31T00:00:00Z."))
    })
}

fn before(cursor: Option<&str>) -> Result<Option<(UnixMs, i64)>, ApiError> {
    let text = decode_cursor(cursor)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.split_once('.')
        .and_then(|(time, position)| Some((time.parse().ok()?, position.parse().ok()?)))
        .map(Some)
        .ok_or_else(foreign_cursor)
}

/// 403 unless this viewer reads the whole log: people and management keys do.
fn reads_all(viewer: &Viewer) -> Result<(), ApiError> {
    match viewer {
        Viewer::Person(_) => Ok(()),
        Viewer::Key(credential) => credential.require(&[KeyKind::Management], "Reading the audit log"),
    }
}

/// `GET /v1/audit`: newest first. Large events make a page end early.
pub(crate) async fn search(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Params(params): Params<SearchParams>,
) -> Result<Json<Page<Box<RawValue>>>, ApiError> {
    reads_all(&viewer)?;
    let (filter, limit) = params.filter()?;
    let mut db = app.db.read(viewer.org()).await?;
    let found = audit::list(&mut db, viewer.org(), &filter, limit).await?;
    let key = |e: &StoredEvent| format!("{}.{}", e.time_ms, e.position);
    let Page { data, next_cursor } = Page::of(found.events, found.more, key);
    let data = data.into_iter().map(shown).collect::<Result<_, _>>()?;
    Ok(Json(Page { data, next_cursor }))
}

/// The event to the byte: its hash can be worked out from what is shown.
fn shown(event: StoredEvent) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(event.body).map_err(|e| ApiError::internal(&e))
}

/// `GET /v1/audit/export`: everything that matches, in order of arrival, one canonical event per line.
pub(crate) async fn export(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Params(params): Params<SearchParams>,
) -> Result<Response, ApiError> {
    reads_all(&viewer)?;
    let (filter, _) = params.filter()?;
    let org = viewer.org().clone();
    let (lines, body) = tokio::sync::mpsc::channel::<Result<Bytes, StoreError>>(4);
    tokio::spawn(async move {
        if let Err(error) = write_lines(&app.db, &org, &filter, &lines).await {
            tracing::error!(%error, "an export ended early");
            // The client sees a broken stream, not a short export.
            let _ = lines.send(Err(error)).await;
        }
    });
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson"),
        (CONTENT_DISPOSITION, "attachment; filename=\"audit.ndjson\""),
    ];
    let stream =
        futures_util::stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) });
    Ok((StatusCode::OK, headers, HttpBody::from_stream(stream.boxed())).into_response())
}

async fn write_lines(
    db: &Db,
    org: &Name,
    filter: &Filter,
    lines: &tokio::sync::mpsc::Sender<Result<Bytes, StoreError>>,
) -> Result<(), StoreError> {
    let mut position = 0;
    loop {
        // Given back before anything is sent: a reader that stands still keeps no connection.
        let part = audit::after(&mut db.read(org).await?, org, filter, (position, EXPORT_EVENTS)).await?;
        let events = part.events;
        let Some(last) = events.last() else { return Ok(()) };
        position = last.position;
        for event in events {
            let mut line = event.body.into_bytes();
            line.push(b'\n');
            if lines.send(Ok(Bytes::from(line))).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Events that an export holds in memory; fewer when they are large.
const EXPORT_EVENTS: u32 = 64;
