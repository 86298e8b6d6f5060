//! Tools of a running MCP server: what it answers to `tools/list`.
//!
//! What the server says of its tools' effects (annotations) are hints that nobody has to believe. They raise
//! the risk level and never lower it below that of a tool without any, and each tool requires approval.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use oakallow_policy::Tool;
use oakallow_policy::annotation::annotated_risk_level;
use oakallow_policy::rule::Permission;
use oakallow_policy::secret;
use oakallow_policy::tool::{ApprovalSettings, ResourceUse, RiskLevel};
use reqwest::Url;
use rmcp::model::{PaginatedRequestParams, ProtocolVersion, Tool as Served};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::found::{DIALECT, Found, described, tool_name};
use super::{Defaults, source};

/// For all pages together, and for the connection.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long a server that was started may take to end.
const END: Duration = Duration::from_secs(3);
const PAGES_MAX: usize = 200;
const TOOLS_MAX: usize = 5_000;

/// Where the server is.
#[derive(clap::Args)]
pub(super) struct Server {
    /// URL of a server over streamable HTTP
    #[arg(value_name = "URL", required_unless_present = "command", conflicts_with = "command")]
    url: Option<String>,
    /// File that holds a bearer token for the server
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    token_file: Option<PathBuf>,
    /// Command that starts a server over standard input and output
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

type Client = RunningService<RoleClient, ()>;

impl Server {
    /// What messages say.
    pub(super) fn shown(&self) -> String {
        match (&self.url, self.command.first()) {
            (Some(url), _) => source::shown(url),
            (None, command) => command.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        }
    }

    /// Asks the server for its tools. `secret` is a variable that a server which is started does not get.
    pub(super) async fn read(&self, secret: &str, defaults: &Defaults) -> anyhow::Result<Found> {
        let shown = self.shown();
        let served = match timeout(TIMEOUT, self.list(secret)).await {
            Ok(listed) => listed.with_context(|| format!("{shown} does not list its tools"))?,
            Err(_) => bail!("{shown} did not list its tools within {} s", TIMEOUT.as_secs()),
        };
        let mut found = Found::default();
        for one in &served {
            let origin = origin(one);
            match tool(one, defaults) {
                Ok((tool, notes)) => found.add(tool, origin, notes),
                Err(reason) => found.refuse(origin, reason),
            }
        }
        found.refuse_clashes();
        Ok(found)
    }

    async fn list(&self, secret: &str) -> anyhow::Result<Vec<Served>> {
        let Some(url) = &self.url else { return self.started(secret).await };
        if !Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            bail!("a URL is wanted, like http://127.0.0.1:9000/mcp; or `-- COMMAND`");
        }
        let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
        if let Some(file) = &self.token_file {
            let token =
                fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            config = config.auth_header(token.trim());
        }
        let client =
            ().serve_with_lifecycle(StreamableHttpClientTransport::from_config(config), either_era());
        let hidden = |e: &dyn Display| without_secrets(&e.to_string(), url);
        let client = client.await.map_err(|e| anyhow!("no MCP server answers: {}", hidden(&e)))?;
        let listed = pages(&client).await.map_err(|e| anyhow!(hidden(&e)));
        let _ = client.cancel().await;
        listed
    }

    async fn started(&self, secret: &str) -> anyhow::Result<Vec<Served>> {
        let (program, arguments) = self.command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command.env_remove(secret).env_remove("OAKALLOW_MANAGEMENT_KEY");
        let mut child = command.spawn().context("cannot start it")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).context("it has no input and output")?;
        let client = ().serve_with_lifecycle((output, input), either_era());
        let client = client.await.map_err(|e| anyhow!("it does not speak MCP: {e}"))?;
        let listed = pages(&client).await;
        let _ = client.cancel().await;
        end(child).await;
        listed
    }
}

/// A message that may name the URL, in whose query and password there may be a secret.
fn without_secrets(message: &str, url: &str) -> String {
    let url = Url::parse(url).ok();
    let parts = [url.as_ref().and_then(Url::query), url.as_ref().and_then(Url::password)];
    let secrets = parts.into_iter().flatten().filter(|secret| !secret.is_empty());
    secrets.fold(message.to_owned(), |message, secret| message.replace(secret, "…"))
}

/// Its input is closed, which tells it to end; if it does not, it is made to.
async fn end(mut child: Child) {
    if timeout(END, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// With sessions up to 2025-11-25, without from 2026-07-28: as the server has it.
fn either_era() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: None,
    }
}

/// Every page. A server that sends the same cursor again would never come to an end.
async fn pages(client: &Client) -> anyhow::Result<Vec<Served>> {
    let (mut tools, mut cursor, mut seen) = (Vec::new(), None, BTreeSet::new());
    for _ in 0..PAGES_MAX {
        let page = client.list_tools(Some(PaginatedRequestParams::default().with_cursor(cursor))).await?;
        tools.extend(page.tools);
        if tools.len() > TOOLS_MAX {
            bail!("it has more than {TOOLS_MAX} tools");
        }
        match page.next_cursor {
            None => return Ok(tools),
            Some(next) if !seen.insert(next.clone()) => bail!("its pages lead in a circle"),
            next => cursor = next,
        }
    }
    bail!("its list has more than {PAGES_MAX} pages")
}

/// The name, unless it is a secret, and what the server says that the tool does.
fn origin(served: &Served) -> String {
    let name = if secret::is_in(&served.name) { "a tool" } else { &served.name };
    let hints = served.annotations.as_ref();
    let said: Vec<&str> = hints
        .map(|hints| {
            [
                (hints.read_only_hint, "read-only", "not read-only"),
                (hints.destructive_hint, "destructive", "not destructive"),
                (hints.idempotent_hint, "idempotent", "not idempotent"),
                (hints.open_world_hint, "open world", "closed world"),
            ]
        })
        .into_iter()
        .flatten()
        .filter_map(|(hint, yes, no)| hint.map(|hint| if hint { yes } else { no }))
        .collect();
    if said.is_empty() { name.to_owned() } else { format!("{name} says: {}", said.join(", ")) }
}

fn tool(served: &Served, defaults: &Defaults) -> Result<(Tool, Vec<String>), String> {
    let name = tool_name(&served.name)?;
    let mut notes = Vec::new();
    let tool = Tool {
        name,
        audience: defaults.audience.clone(),
        description: described(served.description.as_deref().or(served.title.as_deref()).unwrap_or_default()),
        category: defaults.category.clone(),
        risk_level: risk(served),
        parameter_schema: Some(schema(served, &mut notes)),
        default_permission: Some(Permission::RequiresApproval),
        approved: false,
        enabled: true,
        resource: ResourceUse::Optional,
        approval: ApprovalSettings::default(),
    };
    Ok((tool, notes))
}

/// Not below that of a tool of which nothing is said.
fn risk(served: &Served) -> RiskLevel {
    let definition = json!({"annotations": served.annotations});
    annotated_risk_level(&definition).unwrap_or_default().max(RiskLevel::default())
}

/// As it is served. Another dialect is read as 2020-12, which differs where tools seldom go.
fn schema(served: &Served, notes: &mut Vec<String>) -> Value {
    let mut schema = served.input_schema.as_ref().clone();
    if let Some(dialect) = schema.get("$schema").filter(|dialect| *dialect != DIALECT) {
        notes.push(format!("its schema is of the dialect {dialect}, and is read as 2020-12"));
        schema.remove("$schema");
    }
    Value::Object(schema)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn served(annotations: &Value) -> Served {
        serde_json::from_value(
            json!({"name": "x", "inputSchema": {"type": "object"}, "annotations": annotations}),
        )
        .unwrap()
    }

    #[test]
    fn hints_raise_the_risk_and_never_lower_it() {
        for (annotations, expected) in [
            (Value::Null, RiskLevel::Medium),
            (json!({"readOnlyHint": true, "destructiveHint": false}), RiskLevel::Medium),
            (json!({"readOnlyHint": false, "destructiveHint": false}), RiskLevel::Medium),
            (json!({"destructiveHint": true}), RiskLevel::High),
            (json!({"idempotentHint": true}), RiskLevel::High),
        ] {
            assert_eq!(risk(&served(&annotations)), expected, "{annotations}");
        }
    }

    #[test]
    fn the_servers_word_is_shown_as_its_word() {
        let annotations = json!({"readOnlyHint": true, "idempotentHint": false, "openWorldHint": false});
        assert_eq!(origin(&served(&annotations)), "x says: read-only, not idempotent, closed world");
        assert_eq!(origin(&served(&Value::Null)), "x");
        let mut key = served(&Value::Null);
        key.name = "oak_live_0123456789abcdef0123456789abcdef".into();
        assert_eq!(origin(&key), "a tool");
    }

    #[test]
    fn a_message_does_not_repeat_what_is_secret_in_a_url() {
        let url = "http://me:hush@127.0.0.1:1/mcp?token=hidden";
        let told = without_secrets(&format!("cannot reach {url}"), url);
        assert!(
            !told.contains("hush") && !told.contains("hidden") && told.contains("127.0.0.1:1/mcp"),
            "{told}"
        );
    }

    #[test]
    fn another_dialect_is_told() {
        let mut served = served(&Value::Null);
        let draft_7 = json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"});
        served.input_schema = Arc::new(draft_7.as_object().unwrap().clone());
        let mut notes = Vec::new();
        assert_eq!(schema(&served, &mut notes), json!({"type": "object"}));
        assert!(notes[0].contains("draft-07"), "{notes:?}");
    }
}
