//! `oakallow doctor`: whether a deployment holds what it promises, asked from where it is run. In the agent's
//! place it shows whether a tool server can be reached around the proxy.

mod backend;
mod config;
mod proxy;
mod tool_server;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use oakallow_proxy::config::Issuer;
use serde::Serialize;

use crate::Done;
use crate::run::block_on;

/// No question takes longer; what is filtered by a firewall does not answer at all.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `oakallow doctor`
#[derive(clap::Args)]
#[command(after_help = "\
Run it where the agent runs (its container, its pod), with the agent's key in OAKALLOW_API_KEY. It sends
nothing but harmless questions: connections, health, lists, and to each tool server one request without a
token, which a server that checks tokens refuses. It ends with status 1 when something is not in order.")]
pub(crate) struct Args {
    /// A tool server, as the agent would reach it around the proxy (may be repeated)
    #[arg(long = "tool-server", value_name = "URL")]
    tool_servers: Vec<String>,
    /// The backend
    #[arg(long, value_name = "URL", env = "OAKALLOW_BACKEND")]
    backend: Option<String>,
    /// The proxy, as the agent calls it
    #[arg(long, value_name = "URL", env = "OAKALLOW_PROXY")]
    proxy: Option<String>,
    /// The proxy's health and metrics
    #[arg(long, value_name = "URL", env = "OAKALLOW_OPS")]
    ops: Option<String>,
    /// The proxy's configuration: checked, and the source of addresses that are not given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Findings as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// It works, and may not for long.
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was asked: `bypass`, `ready`, `clock`, …
    check: &'static str,
    /// Of what: an address, a file.
    subject: String,
    verdict: Verdict,
    /// What was found; with what to do, unless it is in order.
    detail: String,
}

impl Finding {
    fn new(check: &'static str, subject: &str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { check, subject: subject.to_owned(), verdict, detail: detail.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(f, "{verdict}  {:<8} {}: {}", self.check, self.subject, self.detail)
    }
}

/// Where everything is.
#[derive(Default)]
struct Places {
    tool_servers: Vec<tool_server::Place>,
    backend: Option<String>,
    proxy: Option<String>,
    ops: Option<String>,
    issuers: Vec<Issuer>,
}

/// Looks at everything that is named, and says how it stands.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    let mut findings = Vec::new();
    let places = places(args, &mut findings)?;
    findings.extend(block_on(examine(&places))?);
    for finding in &findings {
        if args.json {
            writeln!(out, "{}", serde_json::to_string(finding)?)?;
        } else {
            writeln!(out, "{finding}")?;
        }
    }
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    Ok(if failed { Done::Findings } else { Done::Ok })
}

/// What the command line names; and for what it does not, what the configuration does.
fn places(args: &Args, findings: &mut Vec<Finding>) -> anyhow::Result<Places> {
    let mut places = match &args.config {
        Some(file) => config::examine(file, findings),
        None => Places::default(),
    };
    if !args.tool_servers.is_empty() {
        places.tool_servers = args.tool_servers.iter().map(|url| tool_server::Place::plain(url)).collect();
    }
    let given = |given: &Option<String>| given.as_ref().map(|url| url.trim_end_matches('/').to_owned());
    places.backend = given(&args.backend).or(places.backend);
    places.proxy = given(&args.proxy).or(places.proxy);
    places.ops = given(&args.ops).or(places.ops);
    let nothing = places.tool_servers.is_empty() && places.backend.is_none() && places.proxy.is_none();
    if nothing && places.ops.is_none() && findings.is_empty() {
        anyhow::bail!("nothing to look at: name a --tool-server, --proxy, --ops, --backend or --config");
    }
    Ok(places)
}

async fn examine(places: &Places) -> anyhow::Result<Vec<Finding>> {
    let http = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tls_info(true)
        .build()?;
    let mut findings = config::issuers(&places.issuers).await?;
    for place in &places.tool_servers {
        findings.push(tool_server::bypass(&http, place).await);
    }
    if let Some(url) = &places.proxy {
        findings.extend(proxy::reached(&http, url).await);
    }
    if let Some(url) = &places.ops {
        findings.extend(proxy::health(&http, url).await);
    }
    if let Some(url) = &places.backend {
        findings.extend(backend::examine(&http, url).await);
    }
    Ok(findings)
}

/// Why there was no answer, without what only fills the line.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let last = std::iter::successors(std::error::Error::source(error), |e| e.source()).last();
    last.map_or_else(|| error.to_string(), ToString::to_string)
}
