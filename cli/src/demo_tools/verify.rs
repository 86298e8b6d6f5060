//! Redeeming an execution token: the check that stands before every effect.
//!
//! The backend is the authority on single use. If it cannot be asked, the answer is no.

use std::time::Duration;

use oakallow_policy::canonical;
use oakallow_policy::wire::Secret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalog;

/// How long the backend may take; the caller waits meanwhile.
const REDEEM_TIMEOUT: Duration = Duration::from_secs(5);

/// The request that a token must have been made for, as it arrived.
#[derive(Clone)]
pub(super) struct Received {
    /// The token header, if the request has exactly one.
    pub(super) token: Option<Secret>,
    /// HTTP method.
    pub(super) htm: String,
    /// URI as the caller wrote it, query included.
    pub(super) htu: String,
    /// SHA-256 of the exact body, base64url.
    pub(super) body_sha256: String,
}

/// Why a call is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// No token.
    #[error("the call carries no execution token (X-Oakallow-Token): it did not come through the proxy")]
    Missing,
    /// The backend says no.
    #[error("the execution token is not valid for this call: {0}")]
    Invalid(String),
    /// The backend says nothing.
    #[error("the execution token could not be checked: {0}")]
    Unavailable(String),
}

#[derive(Serialize)]
struct VerifyRequest<'a> {
    token: &'a str,
    tool_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_id: Option<&'a str>,
    htm: &'a str,
    htu: &'a str,
    body_sha256: &'a str,
    arguments_sha256: &'a str,
}

#[derive(Deserialize)]
struct VerifyAnswer {
    valid: bool,
    #[serde(default)]
    claims: Option<Value>,
    #[serde(default)]
    reason: Option<String>,
}

/// Asks the backend to redeem tokens of one audience.
pub(super) struct Verifier {
    client: reqwest::Client,
    url: String,
    key: Secret,
}

impl Verifier {
    pub(super) fn new(backend: &str, key: &Secret) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(REDEEM_TIMEOUT).no_proxy().build()?;
        Ok(Self {
            client,
            url: format!("{}/v1/tokens/verify", backend.trim_end_matches('/')),
            key: key.clone(),
        })
    }

    /// Redeems the token of a call of `tool`; its claims, once. What the tool will act on counts: the
    /// arguments as they were read, and the resource that they name.
    pub(super) async fn redeem(
        &self,
        tool: &str,
        arguments: &Value,
        call: &Received,
    ) -> Result<Value, Refused> {
        let token = call.token.as_ref().ok_or(Refused::Missing)?;
        let canonical = canonical::json_bytes(arguments).map_err(|e| Refused::Invalid(e.to_string()))?;
        let request = VerifyRequest {
            token: token.expose(),
            tool_name: tool,
            resource_id: catalog::resource(tool, arguments),
            htm: &call.htm,
            htu: &call.htu,
            body_sha256: &call.body_sha256,
            arguments_sha256: &canonical::base64url(&canonical::sha256(&canonical)),
        };
        let answer = self.ask(&request).await?;
        match answer {
            VerifyAnswer { valid: true, claims: Some(claims), .. } => Ok(claims),
            VerifyAnswer { reason, .. } => {
                Err(Refused::Invalid(reason.unwrap_or_else(|| "no reason given".to_owned())))
            }
        }
    }

    async fn ask(&self, request: &VerifyRequest<'_>) -> Result<VerifyAnswer, Refused> {
        let away = |e: reqwest::Error| Refused::Unavailable(e.without_url().to_string());
        let sent = self.client.post(&self.url).header("x-api-key", self.key.expose()).json(request).send();
        let response = sent.await.map_err(away)?;
        if !response.status().is_success() {
            return Err(Refused::Unavailable(format!("the backend answered {}", response.status())));
        }
        response.json().await.map_err(away)
    }
}
