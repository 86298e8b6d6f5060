//! The backend's REST API with a management key, for the commands that read and change a policy.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use oakallow_policy::rule::Permission;
use oakallow_policy::tool::{ApprovalSettings, ResourceUse, RiskLevel};
use oakallow_policy::wire::{Problem, Secret};
use oakallow_policy::{Category, Tool};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde_json::{Value, json};

/// No answer of the backend takes longer, but for one that does not come.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Rows asked for at once: as many as the backend gives.
const PAGE: usize = 500;
/// What a segment of a path cannot hold as it is (RFC 3986 section 3.3), and what shells look at.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'$')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b'+')
    .add(b'/')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Which backend, and with which key.
#[derive(clap::Args)]
pub(crate) struct BackendArgs {
    /// The backend
    #[arg(
        long,
        value_name = "URL",
        env = "OAKALLOW_BACKEND",
        value_parser = base,
        default_value = "http://127.0.0.1:4000"
    )]
    backend: String,
    /// Environment variable that holds the management key (oak_live_…)
    #[arg(long, value_name = "NAME", default_value = "OAKALLOW_MANAGEMENT_KEY")]
    key_env: String,
    /// File that holds the key, instead of the environment variable
    #[arg(long, value_name = "FILE", conflicts_with = "key_env")]
    key_file: Option<PathBuf>,
}

impl BackendArgs {
    /// The variable that may hold the key.
    pub(crate) fn key_env(&self) -> &str {
        &self.key_env
    }

    /// A client, with the key read from where it is.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Client { client, base: self.backend.clone(), key: self.key()? })
    }

    fn key(&self) -> anyhow::Result<Secret> {
        let (key, place) = match &self.key_file {
            Some(file) => {
                let text = fs::read_to_string(file);
                let text = text.with_context(|| format!("cannot read {}", file.display()))?;
                (text, file.display().to_string())
            }
            None => match env::var(&self.key_env) {
                Ok(key) => (key, format!("${}", self.key_env)),
                Err(_) => bail!("set {} to a management key, or name a --key-file", self.key_env),
            },
        };
        let key = key.trim();
        if !key.starts_with("oak_live_") {
            bail!("{place} does not hold a management key (oak_live_…)");
        }
        Ok(Secret::new(key.to_owned()))
    }
}

/// Reads the address of a backend: no user, no path, no query, which could be a secret or lead elsewhere.
fn base(written: &str) -> Result<String, &'static str> {
    let url = Url::parse(written).map_err(|_| "a URL is wanted, like http://127.0.0.1:4000")?;
    let bare = matches!(url.path(), "/" | "") && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !bare || !nobody {
        return Err("http[s]://HOST[:PORT] is wanted, and nothing more");
    }
    Ok(written.trim_end_matches('/').to_owned())
}

/// A name as a segment of a path.
pub(crate) fn segment(name: &str) -> String {
    // The two that a path takes for directions.
    match name {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => utf8_percent_encode(name, SEGMENT).to_string(),
    }
}

/// A client with one key.
pub(crate) struct Client {
    client: reqwest::Client,
    base: String,
    key: Secret,
}

impl Client {
    #[cfg(test)]
    pub(crate) fn new(base: &str, key: Secret) -> Self {
        Self { client: reqwest::Client::new(), base: base.to_owned(), key }
    }

    /// Where the backend is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// A whole list, page by page.
    pub(crate) async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        let joined = if path.contains('?') { '&' } else { '?' };
        loop {
            let next = if cursor.is_empty() { String::new() } else { format!("&cursor={cursor}") };
            let mut page =
                self.send(&Method::GET, &format!("{path}{joined}limit={PAGE}{next}"), None).await?;
            match page.get_mut("data").map(Value::take) {
                Some(Value::Array(data)) => rows.extend(data),
                _ => bail!("GET {path}: the answer is no list: is this the backend?"),
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) if next != cursor => next.clone_into(&mut cursor),
                _ => return Ok(rows),
            }
        }
    }

    /// The version of the policy: it grows with every change.
    pub(crate) async fn policy_version(&self) -> anyhow::Result<u64> {
        let asked = json!({"call": {"tool_name": "policy version"}});
        let answer = self.send(&Method::POST, "/v1/rules/simulate", Some(&asked)).await?;
        let version = answer.pointer("/decision/policy_version").and_then(Value::as_u64);
        version.context("the backend does not tell the version of the policy")
    }

    /// One request; what it answers, `null` when it answers nothing.
    pub(crate) async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        // The query is for us, and would only fill a message.
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.header("x-api-key", self.key.expose()).send().await;
        let response = response.with_context(|| format!("{what}: the backend cannot be asked"))?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(Value::Null),
            status if status.is_success() => response.json().await.with_context(|| what),
            status => bail!("{what}: {}", refusal(status, response.json().await.ok())),
        }
    }
}

/// A refusal as the backend explains it.
fn refusal(status: StatusCode, problem: Option<Problem>) -> String {
    let Some(problem) = problem else { return format!("it answers {status}: is this the backend?") };
    let place = problem.more.get("pointer").and_then(Value::as_str).filter(|place| !place.is_empty());
    let place = place.map(|place| format!(" (at {place})")).unwrap_or_default();
    format!("{}{place} [{} {}]", problem.detail, status.as_u16(), problem.code)
}

/// A registered tool, without what the backend shows beside it.
pub(crate) fn tool(row: Value) -> anyhow::Result<Tool> {
    let every = Tool {
        name: oakallow_policy::tool::default_audience(),
        audience: oakallow_policy::tool::default_audience(),
        description: "x".to_owned(),
        category: Some(oakallow_policy::tool::default_audience()),
        risk_level: RiskLevel::Low,
        parameter_schema: Some(json!({})),
        default_permission: Some(Permission::Disabled),
        approved: true,
        enabled: true,
        resource: ResourceUse::Optional,
        approval: ApprovalSettings { timeout_s: Some(60), levels: Some(1) },
    };
    serde_json::from_value(with_fields_of(row, &every)?).context("a tool that the backend has")
}

/// A category, without what the backend shows beside it.
pub(crate) fn category(row: Value) -> anyhow::Result<Category> {
    let every = Category {
        name: oakallow_policy::tool::default_audience(),
        default_permission: Some(Permission::Disabled),
    };
    serde_json::from_value(with_fields_of(row, &every)?).context("a category that the backend has")
}

/// A row with those members only that `every`, in which nothing is left out, has as well.
pub(crate) fn with_fields_of(mut row: Value, every: &impl Serialize) -> anyhow::Result<Value> {
    let every = serde_json::to_value(every)?;
    let fields: BTreeSet<&String> =
        every.as_object().into_iter().flat_map(|members| members.keys()).collect();
    if let Some(members) = row.as_object_mut() {
        members.retain(|name, _| fields.contains(name));
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_one_segment_of_a_path() {
        for (name, written) in [
            ("restart_service", "restart_service"),
            ("a/b c", "a%2Fb%20c"),
            ("..", "%2E%2E"),
            ("it's $(x)?", "it%27s%20%24%28x%29%3F"),
            ("café", "caf%C3%A9"),
        ] {
            assert_eq!(segment(name), written);
        }
    }

    #[test]
    fn a_backends_address_is_nothing_but_an_address() {
        assert_eq!(base("https://oakallow.example.com/").unwrap(), "https://oakallow.example.com");
        for refused in
            ["127.0.0.1:4000", "http://a:b@host", "http://host/v1", "http://host?key=x", "ftp://host"]
        {
            assert!(base(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_tool_is_read_without_what_is_shown_beside_it() {
        let row = json!({"name": "x", "status": "active", "definition_hash": "00", "approved": true});
        let tool = tool(row).unwrap();
        assert!(tool.approved && tool.enabled);
    }
}
