//! Whoever looks at approvals: a key, or a signed-in person.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use http::request::Parts;
use oakallow_policy::id::Name;

use crate::approvals::decide::Decider;
use crate::auth::Credential;
use crate::error::ApiError;
use crate::keys::KeyKind;
use crate::session::{self, CSRF_HEADER, Session};
use crate::state::App;
use crate::store::approvals::{Approval, Filter};
use crate::store::{StoreError, Write, users};

/// See the module's documentation.
#[derive(Clone)]
pub(crate) enum Viewer {
    Key(Box<Credential>),
    Person(Session),
}

impl Viewer {
    pub(crate) fn org(&self) -> &Name {
        match self {
            Self::Key(credential) => credential.org(),
            Self::Person(session) => &session.org,
        }
    }

    /// Who it is, in events.
    pub(crate) fn actor(&self) -> &str {
        match self {
            Self::Key(credential) => credential.principal(),
            Self::Person(session) => &session.email,
        }
    }

    /// Whether it may see this approval: people and approver keys all of the org's, others their own.
    pub(crate) fn may_see(&self, approval: &Approval) -> bool {
        let Self::Key(credential) = self else { return true };
        match credential.kind() {
            KeyKind::Approver => true,
            KeyKind::Standard | KeyKind::Agent => {
                credential.reaches(approval.tenant.as_deref())
                    && approval.principal.as_str() == credential.principal()
            }
            KeyKind::Management | KeyKind::Tool | KeyKind::Proxy => false,
        }
    }

    /// Narrows a list to what [`Viewer::may_see`] lets through.
    pub(crate) fn narrow(&self, filter: &mut Filter) -> Result<(), ApiError> {
        let Self::Key(credential) = self else { return Ok(()) };
        if !matches!(credential.kind(), KeyKind::Standard | KeyKind::Agent | KeyKind::Approver) {
            return Err(ApiError::forbidden(
                "wrong_credential",
                format!(
                    "All approvals are listed to an approver key (oak_appr_…) and to signed-in people, those of \
                     one caller to its own standard or agent key; this is a {} key.",
                    credential.kind().as_str()
                ),
            ));
        }
        if credential.kind() != KeyKind::Approver {
            filter.principal = Some(credential.principal_name()?);
            filter.within = credential.tenants().map(<[Name]>::to_vec);
        }
        Ok(())
    }

    /// The person behind it, if it is one's: a session, or an approver key.
    pub(crate) async fn decider(&self, app: &App) -> Result<Option<Decider>, StoreError> {
        match self {
            Self::Person(session) => Ok(Some(session.decider())),
            Self::Key(credential) if credential.kind() == KeyKind::Approver => {
                let id = credential.key.user_id.as_deref().unwrap_or_default();
                let mut db = app.db.read(credential.org()).await?;
                let user = users::by_id(&mut db, credential.org(), id).await?;
                Ok(user.map(|user| Decider {
                    may_decide: session::may_decide(&user.role),
                    email: user.email,
                    by_key: true,
                }))
            }
            Self::Key(_) => Ok(None),
        }
    }

    /// Begins a change, if it is still in force.
    pub(crate) async fn write(&self, app: &Arc<App>) -> Result<Write, ApiError> {
        match self {
            Self::Person(session) => session.write(app).await,
            Self::Key(credential) => credential.write(app).await,
        }
    }

    /// 401 once it is no longer in force: whoever has waited is asked again.
    pub(crate) async fn must_be_in_force(&self, app: &App) -> Result<(), ApiError> {
        match self {
            _ if self.is_in_force(app).await? => Ok(()),
            Self::Person(_) => Err(Session::ended()),
            Self::Key(_) => Err(Credential::ended()),
        }
    }

    /// It has not been revoked, ended or expired since: long streams ask again.
    pub(crate) async fn is_in_force(&self, app: &App) -> Result<bool, StoreError> {
        let mut db = app.db.read(self.org()).await?;
        match self {
            Self::Person(session) => session.is_in_force(app, &mut db).await,
            Self::Key(credential) => credential.is_in_force(app, &mut db).await,
        }
    }
}

impl FromRequestParts<Arc<App>> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let headers = &parts.headers;
        let has_key = headers.contains_key("x-api-key") || headers.contains_key(AUTHORIZATION);
        if has_key || !headers.contains_key(COOKIE) {
            return Credential::from_request_parts(parts, app).await.map(|key| Self::Key(Box::new(key)));
        }
        let session = Session::from_request_parts(parts, app).await?;
        if !parts.method.is_safe() {
            let header = |name| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
            // A form of another site cannot send either.
            if !header(CONTENT_TYPE.as_str()).starts_with("application/json") {
                return Err(ApiError::invalid_request("With a session, send application/json."));
            }
            session.check_csrf(header(CSRF_HEADER))?;
        }
        Ok(Self::Person(session))
    }
}
