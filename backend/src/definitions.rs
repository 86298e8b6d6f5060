//! Definitions of tools, as proxies see them served: the first sight pins one, a later one that differs
//! takes the tool's trust away until somebody accepts it.

use oakallow_policy::audit::EventType;
use oakallow_policy::canonical::unhex;
use oakallow_policy::id::Name;
use oakallow_policy::pin::TEXT_BYTES_MAX;
use oakallow_policy::wire::SeenDefinition;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::record::Change;
use crate::state::App;
use crate::store::definitions::{self, Definition, Stored};
use crate::store::proxies::Proxy;
use crate::store::{self, StoreError, Write, tools};

/// A tool server that invents tools must not fill the table.
const PER_AUDIENCE_MAX: i64 = 1_000;

/// Takes in what a proxy saw; whether anything that decisions depend on is different now.
pub(crate) async fn seen(
    app: &App,
    write: &mut Write,
    proxy: &Proxy,
    (audience, all): (&Name, &[SeenDefinition]),
) -> Result<bool, ApiError> {
    let mut news = false;
    for seen in all {
        let served = definition(seen)?;
        let known = definitions::find(write, &proxy.org, &seen.name, audience).await?;
        if known.as_ref().is_some_and(|known| known.served.sha256 == served.sha256) {
            continue;
        }
        if known.is_none() && !is_wanted(write, &proxy.org, &seen.name, audience).await? {
            tracing::warn!(%audience, tool = %seen.name, "more tools than are pinned: this one is not");
            continue;
        }
        let now = app.now();
        let kind = match known {
            None => EventType::ToolDefinitionPinned,
            // Or the way back to what was pinned.
            Some(_) => EventType::ToolDefinitionChanged,
        };
        let stored = match known {
            None => Stored {
                tool: seen.name.clone(),
                audience: audience.clone(),
                pinned: served.clone(),
                pinned_by: None,
                pinned_at: now,
                served,
                served_through: proxy.id.clone(),
                served_at: now,
            },
            Some(known) => Stored { served, served_through: proxy.id.clone(), served_at: now, ..known },
        };
        definitions::put(write, &proxy.org, &stored).await?;
        let change = Change::new(kind, &proxy.org, &proxy.id, detail(&stored));
        change.tool(Some(&stored.tool)).record(app, write).await?;
        news = true;
    }
    Ok(news)
}

/// What an event says of it: the texts are in the table, their digests in the log.
fn detail(stored: &Stored) -> Value {
    json!({
        "audience": stored.audience,
        "pinned_sha256": stored.pinned.sha256,
        "served_sha256": stored.served.sha256,
        "changed": stored.is_changed(),
    })
}

/// Makes what is served now the pinned one; `None` when nothing was seen of the tool.
pub(crate) async fn accept(
    app: &App,
    write: &mut Write,
    (org, tool, audience): (&Name, &Name, &Name),
    by: &str,
) -> Result<Option<Stored>, StoreError> {
    let Some(known) = definitions::find(write, org, tool, audience).await? else { return Ok(None) };
    let stored = Stored {
        pinned: known.served.clone(),
        pinned_by: Some(by.to_owned()),
        pinned_at: app.now(),
        ..known
    };
    definitions::put(write, org, &stored).await?;
    Change::new(EventType::ToolDefinitionPinned, org, by, detail(&stored))
        .tool(Some(tool))
        .record(app, write)
        .await?;
    Ok(Some(stored))
}

/// Whether a tool that was not seen before is taken in: a registered one always.
async fn is_wanted(write: &mut Write, org: &Name, tool: &Name, audience: &Name) -> Result<bool, ApiError> {
    let stored = store::one::<tools::Stored>(write, org, tool).await?;
    let registered =
        stored.is_some_and(|t| t.status == tools::Status::Active && t.tool.audience == *audience);
    Ok(registered || definitions::count(write, org, audience).await? < PER_AUDIENCE_MAX)
}

/// The proxy has read it, and says what it is by its digest; the text is for people.
fn definition(seen: &SeenDefinition) -> Result<Definition, ApiError> {
    if unhex(&seen.sha256).is_none_or(|bytes| bytes.len() != 32) {
        return Err(ApiError::invalid_value("/definitions", "`sha256` has 64 hexadecimal digits."));
    }
    let kept = seen.definition.as_deref().filter(|text| text.len() <= TEXT_BYTES_MAX);
    Ok(Definition {
        sha256: seen.sha256.clone(),
        content: kept.and_then(|text| serde_json::from_str(text).ok()),
    })
}

/// One difference between two definitions.
#[derive(Debug, PartialEq, serde::Serialize)]
pub(crate) struct Difference {
    /// A JSON pointer.
    pub(crate) path: String,
    /// `None`: it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Value>,
    /// `None`: it is not there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Value>,
}

/// What differs between two definitions, place by place. (A JSON Patch says what to do, and not what was
/// there before, which is what people look at.)
pub(crate) fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(path: String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let only_after = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(only_after) {
                let step = key.replace('~', "~0").replace('/', "~1");
                compare(format!("{path}/{step}"), a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                compare(format!("{path}/{i}"), a.get(i), b.get(i), found);
            }
        }
        (before, after) => {
            found.push(Difference { path, before: before.cloned(), after: after.cloned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Difference, differences};

    #[test]
    fn differences_name_the_place_and_both_sides() {
        let before = json!({"name": "pay", "inputSchema": {"required": ["to"], "a/b": 1}, "title": "Pay"});
        let after =
            json!({"name": "pay", "inputSchema": {"required": ["to", "cc"], "a/b": 2}, "description": "x"});
        let at = |path: &str, before, after| Difference { path: path.to_owned(), before, after };
        let expected = [
            at("/inputSchema/a~1b", Some(json!(1)), Some(json!(2))),
            at("/inputSchema/required/1", None, Some(json!("cc"))),
            at("/title", Some(json!("Pay")), None),
            at("/description", None, Some(json!("x"))),
        ];
        let found = differences(&before, &after);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(expected.iter().all(|difference| found.contains(difference)), "{found:?}");
        assert_eq!(differences(&after, &after), []);
    }
}
