//! Secrets where names stand. A name of a call is in events, drafts and approvals as it is, for good: a key
//! must not become one.

use http::StatusCode;
use oakallow_policy::id::Name;
use oakallow_policy::secret;

use crate::error::ApiError;

/// 422 when a name is or holds a secret, which the answer does not repeat.
pub(crate) fn none_is_a_secret<const N: usize>(names: [(&str, Option<&Name>); N]) -> Result<(), ApiError> {
    let secret = names.into_iter().find(|(_, name)| name.is_some_and(|name| secret::is_in(name)));
    secret.map_or(Ok(()), |(pointer, _)| {
        let detail =
            "This looks like a secret, and names are recorded as they are: send it in the parameters.";
        Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "secret_in_name", detail)
            .with("pointer", pointer))
    })
}

#[cfg(test)]
mod tests {
    use oakallow_policy::secret;

    use crate::keys::{JOIN_PREFIX, KeyKind};

    #[test]
    fn every_key_of_ours_is_known_as_a_secret() {
        for prefix in KeyKind::ALL.map(KeyKind::prefix).into_iter().chain([JOIN_PREFIX]) {
            assert!(secret::is_in(&format!("{prefix}0")), "{prefix}");
        }
    }
}
