//! The first run, and what a local administrator may do: whoever can start this process with its data
//! directory owns the data anyway. None of this is reachable over HTTP.

use oakallow_policy::audit::EventType;
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::wire::{Secret, Tenancy};
use serde_json::json;

use crate::Running;
use crate::keys::{KeyKind, NewSecret};
use crate::record::Change;
use crate::session;
use crate::store::users::User;
use crate::store::{self, StoreError, Write};
use crate::vault::VaultError;

/// Who acts, in the audit log.
pub(crate) const LOCAL_ADMIN: &str = "local-admin";

/// The org to set up.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Its name.
    pub org: String,
    /// Its first person.
    pub owner_email: String,
}

/// Why a local operation failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BootstrapError {
    #[error("the org's name: {0}")]
    Org(#[from] oakallow_policy::id::NameError),
    #[error("`{0}` is not an e-mail address")]
    Email(String),
    #[error("org `{org}` has no user `{email}`")]
    NoUser { org: String, email: String },
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for BootstrapError {
    fn from(e: StoreError) -> Self {
        Self::Failed(e.to_string())
    }
}

impl From<VaultError> for BootstrapError {
    fn from(e: VaultError) -> Self {
        Self::Failed(e.to_string())
    }
}

impl Running {
    /// Creates the org and its owner where they are missing, and issues a management key: each call a
    /// new one, since no key can be shown twice.
    pub async fn bootstrap(&self, wanted: Bootstrap) -> Result<Secret, BootstrapError> {
        let org = Name::new(&wanted.org)?;
        let email = normal_email(&wanted.owner_email)?;
        let app = &self.app;
        let now = app.now();
        let mut write = app.write(&org).await?;
        if store::orgs::insert(&mut write, &org, now).await? {
            // The org's secrets are made here, so that later requests only ever read them.
            app.vault.provision(&mut write, &org).await?;
        }
        if store::users::by_email(&mut write, &org, &email).await?.is_none() {
            let user =
                User { id: app.random.id(Kind::User, now), email: email.clone(), role: "owner".to_owned() };
            store::users::insert(&mut write, &org, &user, now).await?;
            let detail = json!({"id": user.id, "email": user.email, "role": user.role});
            Change::new(EventType::UserCreated, &org, LOCAL_ADMIN, detail).record(app, &mut write).await?;
        }
        let key = LocalKey { kind: KeyKind::Management, name: "bootstrap", user_id: None, owner: &email };
        let secret = self.insert_key(&mut write, &org, &key).await?;
        write.commit().await?;
        Ok(secret)
    }

    /// Issues an approver key for a person, as that person would in a signed-in session. For `dev`,
    /// which has nobody signed in.
    pub async fn issue_approver_key(&self, org: &str, email: &str) -> Result<Secret, BootstrapError> {
        let org = Name::new(org)?;
        let email = normal_email(email)?;
        let mut write = self.app.write(&org).await?;
        let user = store::users::by_email(&mut write, &org, &email)
            .await?
            .ok_or_else(|| BootstrapError::NoUser { org: org.to_string(), email: email.clone() })?;
        let key = LocalKey {
            kind: KeyKind::Approver,
            name: "local approver",
            user_id: Some(&user.id),
            owner: &email,
        };
        let secret = self.insert_key(&mut write, &org, &key).await?;
        write.commit().await?;
        Ok(secret)
    }

    /// Makes a link with which a person signs in, once.
    pub async fn issue_login_link(&self, org: &str, email: &str) -> Result<String, BootstrapError> {
        let org = Name::new(org)?;
        let email = normal_email(email)?;
        let link = session::issue_login_link(&self.app, &org, &email).await?;
        match link {
            Some(link) => Ok(link.expose().to_owned()),
            None => Err(BootstrapError::NoUser { org: org.to_string(), email }),
        }
    }

    async fn insert_key(
        &self,
        write: &mut Write,
        org: &Name,
        local: &LocalKey<'_>,
    ) -> Result<Secret, BootstrapError> {
        let app = &self.app;
        let now = app.now();
        let new = NewSecret::make(local.kind.prefix(), app.random);
        let key = store::keys::Key {
            id: app.random.id(Kind::Key, now),
            org: org.clone(),
            kind: local.kind,
            hash: new.hash,
            prefix: new.prefix,
            name: local.name.to_owned(),
            tenancy: Tenancy::Org,
            agent: None,
            user_id: local.user_id.map(str::to_owned),
            owner: Some(local.owner.to_owned()),
            audience: None,
            proxy_id: None,
            created_by: LOCAL_ADMIN.to_owned(),
            created_at: now,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        };
        store::keys::insert(write, &key).await?;
        let detail = json!({"id": key.id, "kind": key.kind, "prefix": key.prefix, "name": key.name});
        Change::new(EventType::KeyCreated, org, LOCAL_ADMIN, detail).record(app, write).await?;
        Ok(new.secret)
    }
}

struct LocalKey<'a> {
    kind: KeyKind,
    name: &'a str,
    user_id: Option<&'a str>,
    owner: &'a str,
}

/// Addresses are compared without regard to case; what is before and after the `@` is not judged.
pub(crate) fn normal_email(email: &str) -> Result<String, BootstrapError> {
    let email = email.trim().to_lowercase();
    let plausible = email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
        && email.len() <= 254
        && !email.chars().any(|c| c.is_whitespace() || oakallow_policy::id::is_invisible(c));
    if plausible { Ok(email) } else { Err(BootstrapError::Email(email)) }
}
