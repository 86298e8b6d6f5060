//! What a tool server says of a tool now that it did not say when the tool was pinned, for the one who decides.

use oakallow_policy::id::Name;
use serde_json::Value;

use super::text::{Piece, visible};
use crate::definitions::differences;
use crate::store::approvals::Approval;
use crate::store::{Conn, StoreError, definitions};

/// More differences than these are for `GET /v1/tools/{name}/definition`; and so is the rest of a long text.
const SHOWN_MAX: usize = 10;
const CHARS_MAX: usize = 2_000;

/// How a tool's definition changed.
pub(super) struct Drift {
    pub(super) shifts: Vec<Shift>,
    /// How many are not shown.
    pub(super) more: usize,
}

/// One place of a definition.
pub(super) struct Shift {
    pub(super) path: Vec<Piece>,
    pub(super) before: Vec<Piece>,
    pub(super) after: Vec<Piece>,
}

/// The change of an approval's tool, if its definition is not the pinned one.
pub(super) async fn of(db: &mut Conn, approval: &Approval) -> Result<Option<Drift>, StoreError> {
    let place: (&Name, &Name) = (&approval.tool, &approval.audience);
    let stored = definitions::find(db, &approval.org, place.0, place.1).await?;
    let Some(stored) = stored.filter(definitions::Stored::is_changed) else { return Ok(None) };
    let both = stored.pinned.content.as_ref().zip(stored.served.content.as_ref());
    let all = both.map(|(pinned, served)| differences(pinned, served)).unwrap_or_default();
    let more = all.len().saturating_sub(SHOWN_MAX);
    let shift = |difference: crate::definitions::Difference| Shift {
        path: visible(&difference.path),
        before: readable(difference.before.as_ref()),
        after: readable(difference.after.as_ref()),
    };
    Ok(Some(Drift { shifts: all.into_iter().take(SHOWN_MAX).map(shift).collect(), more }))
}

fn readable(value: Option<&Value>) -> Vec<Piece> {
    let text = match value {
        None => return Vec::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => visible(&format!("{} …", text.get(..end).unwrap_or_default())),
        None => visible(&text),
    }
}
