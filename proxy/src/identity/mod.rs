//! Who this proxy is to the backend, and who its callers are: by a key of ours, by the token of an issuer, or by
//! the certificate that their connection was opened with.

mod audience;
mod caller;
mod credential;
mod inquiry;
mod issuer;
mod keys;
mod metadata;
mod own;
mod standing;
mod token;

pub use audience::Audiences;
pub use caller::{Caller, Credential, Gate, by_key, key_principal};
pub use credential::{KEY_HEADER, TENANT_HEADER, credential, is_bearer_token};
pub use issuer::{IssuerError, Issuers, examine};
pub use keys::check_file;
pub use metadata::{Resource, WELL_KNOWN};
pub use own::{Identity, IdentityError, write_private};
pub use standing::{Standing, Stir, follow_clock};
pub use token::Verified;
