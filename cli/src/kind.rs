//! The kinds of file that people write, told apart by the one key that each must have.

use std::collections::BTreeMap;

use clap::ValueEnum;
use oakallow_policy::document::{DocumentError, from_yaml};
use serde::de::IgnoredAny;

/// What a file can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A proxy's configuration
    Proxy,
    /// A policy document
    Policy,
    /// A file of policy tests
    PolicyTests,
}

impl Kind {
    /// What a text seems to be.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let top: BTreeMap<String, IgnoredAny> = from_yaml("", text).ok()?;
        let kinds = [(Self::Proxy, "routes"), (Self::Policy, "org"), (Self::PolicyTests, "cases")];
        kinds.into_iter().find(|(_, key)| top.contains_key(*key)).map(|(kind, _)| kind)
    }

    /// Reads a text of this kind. Broken YAML is told before what stands in it, and another kind before
    /// its keys, none of which fit.
    pub(crate) fn read<T>(
        self,
        file: &str,
        text: &str,
        parse: impl FnOnce(&str, &str) -> Result<T, DocumentError>,
    ) -> Result<T, DocumentError> {
        well_formed(file, text)?;
        parse(file, text).map_err(|error| match Self::of(text) {
            Some(other) if other != self => DocumentError {
                file: file.to_owned(),
                at: None,
                message: format!("this looks like {}, not like {}", other.noun(), self.noun()),
                hint: Some(self.advice().to_owned()),
            },
            _ => error,
        })
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Proxy => "a proxy configuration",
            Self::Policy => "a policy document",
            Self::PolicyTests => "policy tests",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Proxy => "a proxy configuration has `routes:`; see config/proxy.yaml",
            Self::Policy => "a policy document has `org:`; see config/policy.yaml",
            Self::PolicyTests => {
                "give a file with `cases:` and with the document's path under `policy:`; see config/policy-tests.yaml"
            }
        }
    }
}

/// Whether a text is YAML. A reader that knows what it wants stops at the first key that it does not know,
/// even where the text breaks off behind it.
pub(crate) fn well_formed(file: &str, text: &str) -> Result<(), DocumentError> {
    from_yaml::<IgnoredAny>(file, text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_the_key_that_it_must_have() {
        for (text, kind) in [
            ("org: demo\nrules: []", Some(Kind::Policy)),
            ("policy: |\n  org: demo\ncases: []", Some(Kind::PolicyTests)),
            ("routes: []", Some(Kind::Proxy)),
            ("org: demo\norg: demo", Some(Kind::Policy)),
            ("hello: world", None),
            ("[org]", None),
            ("a: [1", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }
}
