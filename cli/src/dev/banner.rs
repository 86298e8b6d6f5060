//! What `oakallow dev` says once everything runs: where things are, and what to try.

use std::env;
use std::io::{self, Write};

use super::data_dir::DataDir;
use super::env_file::{Urls, quoted};
use super::seed::{APPROVER, ORG};

/// A thing to try: what happens, and the command that shows it.
struct Try {
    title: &'static str,
    commands: &'static [&'static str],
}

/// Every case of the demo. The commands read `dev.env`, so no key appears here.
const TRIES: &[Try] = &[
    Try {
        title: "Allowed: acme may restart services",
        commands: &[
            r#"curl -s "$OAKALLOW_PROXY/tools/restart_service" -H "X-API-Key: $OAKALLOW_ACME_KEY" -d '{"service":"server-prod-01"}'"#,
        ],
    },
    Try {
        title: "Needs approval: the same call for globex waits until somebody decides on the approvals page",
        commands: &[
            r#"curl -s "$OAKALLOW_PROXY/tools/restart_service" -H "X-API-Key: $OAKALLOW_GLOBEX_KEY" -d '{"service":"server-prod-01"}'"#,
        ],
    },
    Try {
        title: "Disabled: nobody drops a database",
        commands: &[
            r#"curl -s "$OAKALLOW_PROXY/tools/drop_database" -H "X-API-Key: $OAKALLOW_ACME_KEY" -d '{"name":"orders"}'"#,
        ],
    },
    Try {
        title: "Unregistered: a tool that nobody knows is not trusted (answered at once: pending)",
        commands: &[
            r#"curl -s "$OAKALLOW_PROXY/tools/format_disk" -H "X-API-Key: $OAKALLOW_ACME_KEY" -H "Prefer: respond-async" -d '{"disk":"sda"}'"#,
        ],
    },
    Try {
        title: "The REST API: check, mint, log",
        commands: &[
            r#"curl -s "$OAKALLOW_BACKEND/v1/permissions/check" -H "X-API-Key: $OAKALLOW_ACME_KEY" -d '{"tool_name":"restart_service","resource_id":"server-prod-01"}'"#,
            r#"curl -s "$OAKALLOW_BACKEND/v1/tokens/mint" -H "X-API-Key: $OAKALLOW_ACME_KEY" -d '{"tool_name":"restart_service"}'"#,
            r#"curl -s "$OAKALLOW_BACKEND/v1/executions/log" -H "X-API-Key: $OAKALLOW_ACME_KEY" -d '{"tool_name":"restart_service","execution_result":"success"}'"#,
        ],
    },
    Try {
        title: "MCP: the same tools at $OAKALLOW_PROXY/mcp (streamable HTTP, header X-API-Key)",
        commands: &[
            r#"curl -s "$OAKALLOW_PROXY/mcp" -H "X-API-Key: $OAKALLOW_ACME_KEY" -H "Accept: application/json, text/event-stream" -H "MCP-Protocol-Version: 2026-07-28" -H "Mcp-Method: tools/call" -H "Mcp-Name: read_record" -H "Content-Type: application/json" -d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_record","arguments":{"id":"42"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"curl","version":"8"},"io.modelcontextprotocol/clientCapabilities":{}}}}'"#,
        ],
    },
    Try {
        title: "What happened: executions at the tools, events in the audit log",
        commands: &[
            r#"curl -s "$OAKALLOW_TOOLS/executions""#,
            r#"curl -s "$OAKALLOW_BACKEND/v1/audit?limit=5" -H "X-API-Key: $OAKALLOW_MANAGEMENT_KEY""#,
        ],
    },
];

/// Prints everything, and the line `ready` last.
pub(super) fn print(urls: &Urls, data: &DataDir) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write_to(&mut out, urls, data)?;
    out.flush()
}

fn write_to(out: &mut impl Write, urls: &Urls, data: &DataDir) -> io::Result<()> {
    writeln!(out, "metrics      {}/metrics", urls.ops)?;
    writeln!(out, "admin        {}", urls.admin)?;
    let fate = if data.is_temporary() { " (removed when this ends)" } else { "" };
    writeln!(out, "data         {}{fate}", data.path().display())?;
    writeln!(out, "\nApprovals page (link works once): {}", urls.dashboard)?;
    writeln!(out, "Another link:\n\n  {}", login_link(urls, data))?;
    let env = quoted(&data.path().join("dev.env").display().to_string());
    writeln!(out, "\nTo try it, in another terminal:\n\n  set -a; . {env}; set +a")?;
    for Try { title, commands } in TRIES {
        writeln!(out, "\n# {title}")?;
        for command in *commands {
            writeln!(out, "  {command}")?;
        }
    }
    writeln!(out, "\nready: stop with Ctrl-C")
}

/// The command that makes another link, by the name that this program was called by.
fn login_link(urls: &Urls, data: &DataDir) -> String {
    let program = env::args_os().next().unwrap_or_else(|| "oakallow".into());
    let (program, dir) = (quoted(&program.to_string_lossy()), quoted(&data.backend().display().to_string()));
    let port = urls.backend.rsplit(':').next().unwrap_or_default();
    format!(
        "{program} backend login-link --data-dir {dir} --org {ORG} --email {APPROVER} \
         --public-url http://localhost:{port}"
    )
}
