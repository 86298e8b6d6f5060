//! Whether a tool server does what somebody asks who does not come through the proxy.

use serde_json::json;

use super::{Finding, TIMEOUT, Verdict, cause};

/// A tool server and how to speak to it.
pub(super) struct Place {
    url: String,
    /// Speaks MCP: asked for its list of tools.
    mcp: bool,
}

impl Place {
    /// One that is given by its address alone: that of an MCP endpoint by convention ends in `/mcp`.
    pub(super) fn plain(url: &str) -> Self {
        Self { url: url.to_owned(), mcp: url.trim_end_matches('/').ends_with("/mcp") }
    }

    pub(super) fn of_route(url: &str, mcp: bool) -> Self {
        Self { url: url.to_owned(), mcp }
    }
}

/// Asks without a token. What comes no further than a refused connection, or is refused for want of a
/// token, is in order; all else shows a way around the proxy.
pub(super) async fn bypass(http: &reqwest::Client, place: &Place) -> Finding {
    let finding = |verdict, detail: String| Finding::new("bypass", &place.url, verdict, detail);
    let open = match reached(&place.url).await {
        Ok(open) => open,
        Err(problem) => return finding(Verdict::Fail, problem),
    };
    if let Err(why) = open {
        return finding(Verdict::Ok, format!("it cannot be reached from here ({why})"));
    }
    let body = if place.mcp {
        json!({"jsonrpc": "2.0", "id": "oakallow-doctor", "method": "tools/list", "params": {}})
    } else {
        json!({})
    };
    let request = http
        .post(&place.url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(body.to_string());
    match request.send().await {
        Ok(answer) if matches!(answer.status().as_u16(), 401 | 403) => {
            let status = answer.status().as_u16();
            finding(
                Verdict::Ok,
                format!("it can be reached from here, and refuses requests without a token ({status})"),
            )
        }
        Ok(answer) => {
            let status = answer.status().as_u16();
            finding(
                Verdict::Fail,
                format!(
                    "it can be reached from here around the proxy, and answers a request without a token with {status}: \
                     close the way (a network policy, a loopback address beside the proxy), or have it check tokens"
                ),
            )
        }
        Err(e) => finding(
            Verdict::Fail,
            format!("something listens there that can be reached from here around the proxy ({})", cause(&e)),
        ),
    }
}

/// Whether a connection can be made: what happens on it afterwards does not make it less of a way. The outer
/// error is about the address.
async fn reached(url: &str) -> Result<Result<(), String>, String> {
    let wrong = || "this is not an address: http[s]://HOST[:PORT]/PATH".to_owned();
    let url = reqwest::Url::parse(url).map_err(|_| wrong())?;
    let host = url.host_str().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().ok_or_else(wrong)?;
    let connect = tokio::net::TcpStream::connect((host.as_str(), port));
    Ok(match tokio::time::timeout(TIMEOUT, connect).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    })
}
