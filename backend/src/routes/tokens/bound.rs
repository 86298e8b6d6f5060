//! What binds a token to one request, and the request to what was decided.
//!
//! A digest says nothing of the body behind it. So the body itself is sent, and must carry the parameters
//! that were decided on; where only its digest is sent, the tool server must compare the arguments that
//! it read (`verify` asks for them).

use oakallow_policy::canonical::{base64url, json_bytes, sha256};
use oakallow_policy::strict_json;
use serde_json::Value;

use super::digest;
use super::mint::MintRequest;
use crate::error::ApiError;

/// The request that a token is bound to: method, URI, digest of the body.
pub(super) struct Bound {
    pub(super) htm: String,
    pub(super) htu: String,
    pub(super) bdh: String,
}

const TOGETHER: &str = "htm, htu and body bind the token to a request only together: send all three or none.";

/// The binding that a request asks for. Its parameters are afterwards those that the body carries.
pub(super) fn bound(request: &mut MintRequest) -> Result<Option<Bound>, ApiError> {
    let given = (request.htm.take(), request.htu.take(), request.body.take(), request.body_sha256.take());
    let (htm, htu, bdh) = match given {
        (None, None, None, None) => return Ok(None),
        (Some(htm), Some(htu), Some(body), sha256) => (htm, htu, of_body(request, &body, sha256.as_deref())?),
        (Some(htm), Some(htu), None, Some(sha256)) => (htm, htu, of_digest(request, &sha256)?),
        _ => return Err(ApiError::invalid_value("", TOGETHER)),
    };
    if htm.is_empty() || !htm.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(ApiError::invalid_value("/htm", "An HTTP method, like POST."));
    }
    if htu.len() > 8_192 || url::Url::parse(&htu).is_err() {
        return Err(ApiError::invalid_value("/htu", "The absolute URI of the request, query included."));
    }
    Ok(Some(Bound { htm, htu, bdh }))
}

/// Reads the body as the tool server will, and takes the parameters from it.
fn of_body(request: &mut MintRequest, body: &str, sha256_of: Option<&str>) -> Result<String, ApiError> {
    let carried = strict_json::parse(body.as_bytes())
        .map_err(|e| ApiError::invalid_value("/body", format!("The body of the request: {e}.")))?;
    if !carried.is_object() {
        return Err(ApiError::invalid_value("/body", "A JSON object as text: the tool's arguments."));
    }
    if !request.parameters.is_null() && canonical(&request.parameters)? != canonical(&carried)? {
        let detail = "The body carries other parameters than these: leave them out, or send the body that \
                      carries them.";
        return Err(ApiError::invalid_value("/parameters", detail));
    }
    request.parameters = carried;
    let bdh = base64url(&sha256(body.as_bytes()));
    if let Some(given) = sha256_of
        && digest("/body_sha256", given)? != bdh
    {
        return Err(ApiError::invalid_value("/body_sha256", "This is not the SHA-256 of the body."));
    }
    Ok(bdh)
}

fn of_digest(request: &MintRequest, sha256: &str) -> Result<String, ApiError> {
    if request.parameters.is_null() {
        let detail = "A digest does not say what the body carries: send the body, or the parameters (the tool \
                      server compares them with what it reads).";
        return Err(ApiError::invalid_value("/parameters", detail));
    }
    digest("/body_sha256", sha256)
}

/// The one form in which equal parameters are equal bytes.
pub(super) fn canonical(parameters: &Value) -> Result<Vec<u8>, ApiError> {
    json_bytes(parameters).map_err(|e| ApiError::invalid_value("/parameters", format!("{e}.")))
}
