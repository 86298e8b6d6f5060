//! A message on its way to the tool server, and the session that its answer names.

use http::HeaderValue;
use oakallow_policy::Permit;

use super::Exchange;
use super::session::SESSION_HEADER;
use crate::enforce::Target;
use crate::forward::{Answer, Outgoing, passed_on, put_token, target};
use crate::media;
use crate::observe::Trail;
use crate::refusal::Refusal;
use crate::serve::{Received, to};

impl Exchange<'_> {
    /// The id by which the tool server knows the caller's session.
    pub(super) fn session_id(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.id.as_str())
    }

    pub(super) fn target(&self) -> Result<Target, Refusal> {
        let Received { route, parts, .. } = self.received;
        Ok(to(target(&route.upstream, parts.uri.path(), true)?, parts, &self.body))
    }

    pub(super) async fn send(
        &self,
        permit: Permit,
        sent: Target,
        token: Option<&str>,
    ) -> Result<http::Response<Answer>, Refusal> {
        let Received { live, route, parts, caller, .. } = self.received;
        let body = &self.body;
        let upstream = live.upstreams.get(&route.name).ok_or(Refusal::UpstreamUnreachable)?;
        let mut headers = passed_on(&parts.headers);
        // Answers are read here, so they come as they are.
        headers.remove("accept-encoding");
        media::put(&mut headers, body);
        headers.remove(SESSION_HEADER);
        if let Some(id) = self.session_id().and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(SESSION_HEADER, id);
        }
        if let Some(token) = token {
            put_token(&mut headers, token);
        }
        Trail::current().put_headers(&mut headers);
        let outgoing = Outgoing { method: sent.method, uri: sent.uri, headers, body: body.clone() };
        let to = self.session.as_ref().and_then(|session| session.endpoint);
        let mut response = upstream.send(permit, outgoing, to).await?;
        let snapshot = self.app.policy.snapshot();
        let endpoint = upstream.tag(response.body().endpoint());
        let key = snapshot.token_keys.get(&route.audience);
        self.app.mcp.bind(response.headers_mut(), endpoint, caller, key);
        Ok(response)
    }
}
