//! The demo proxy's configuration: written as a file and read back, like anybody's.

use std::fs;
use std::path::Path;

use oakallow_policy::wire::Secret;
use oakallow_proxy::config::Config;
use serde_json::{Value, json};

use super::api::{self, Api};
use super::data_dir::DataDir;
use super::seed::AUDIENCE;
use super::{Args, private_file};

/// What the proxy stands between.
pub(super) struct Between<'a> {
    /// URL of the backend.
    pub(super) backend: &'a str,
    /// URL of the demo tool server.
    pub(super) tools: &'a str,
}

/// Writes `<data-dir>/proxy.yaml`, with a join token beside it where one is needed, and reads it.
pub(super) async fn write(
    args: &Args,
    data: &DataDir,
    between: &Between<'_>,
    management: &Secret,
) -> anyhow::Result<Config> {
    let state = data.path().join("proxy");
    let token = data.path().join("proxy-join-token");
    // The identity is the proxy's own file; without it the proxy has to join again.
    if !state.join("identity.json").exists() {
        let api = Api::new(between.backend, management.clone())?;
        let asked = json!({"audiences": [AUDIENCE], "tenants": null});
        let answer = api.create("/v1/proxies/join-tokens", &asked).await?;
        private_file(&token, api::secret(&answer, "join_token")?.expose())?;
    }
    let file = data.path().join("proxy.yaml");
    private_file(&file, &serde_yaml::to_string(&contents(args, &state, &token, between))?)?;
    let config = Config::load(&file)?;
    // The token is in the configuration now, and good for one use only.
    let _ = fs::remove_file(&token);
    Ok(config)
}

fn contents(args: &Args, state: &Path, token: &Path, between: &Between<'_>) -> Value {
    json!({
        "listen": {"data": args.proxy, "admin": args.admin, "ops": "127.0.0.1:0"},
        "name": "dev-proxy",
        "state_dir": state,
        "backend": {"url": between.backend, "join_token_file": token},
        "routes": [
            {
                "name": "demo-http", "kind": "http", "path": "/tools/{tool}",
                "audience": AUDIENCE, "upstream": between.tools,
                "resources": {"restart_service": "/service"},
            },
            {
                "name": "demo-mcp", "kind": "mcp", "path": "/mcp",
                "audience": AUDIENCE, "upstream": between.tools,
                "resources": {"restart_service": "/service"},
            },
        ],
    })
}
