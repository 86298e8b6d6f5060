//! Rules: who (scope), what (selector), and the verdict.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::Name;
use crate::level::Level;

/// The three answers. Ordered from the loosest to the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by the product")]
pub enum Permission {
    Allowed,
    RequiresApproval,
    Disabled,
}

impl Permission {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::RequiresApproval => "requires_approval",
            Self::Disabled => "disabled",
        }
    }

    /// The permission of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Allowed, Self::RequiresApproval, Self::Disabled].into_iter().find(|p| p.as_str() == name)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a matching rule says: a list of conditional verdicts that ends in an unconditional one.
///
/// Conditions do not exist yet, so the list has one element; its written form is the permission
/// itself, or a list of just that. A condition is refused, never ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    otherwise: Permission,
}

impl Verdict {
    /// The verdict that holds when no condition does.
    #[must_use]
    pub const fn otherwise(self) -> Permission {
        self.otherwise
    }
}

impl From<Permission> for Verdict {
    fn from(otherwise: Permission) -> Self {
        Self { otherwise }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.otherwise.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Verdict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(VerdictVisitor)
    }
}

struct VerdictVisitor;

impl<'de> Visitor<'de> for VerdictVisitor {
    type Value = Verdict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`allowed`, `requires_approval` or `disabled`")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Verdict, E> {
        Permission::parse(name)
            .map(Verdict::from)
            .ok_or_else(|| E::unknown_variant(name, &["allowed", "requires_approval", "disabled"]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Verdict, A::Error> {
        let Some(Single(only)) = list.next_element()? else {
            return Err(de::Error::custom("a verdict list must end in an unconditional permission"));
        };
        if list.next_element::<de::IgnoredAny>()?.is_some() {
            return Err(de::Error::custom(CONDITIONAL));
        }
        Ok(only)
    }
}

const CONDITIONAL: &str = "conditional verdicts (`when`) are not supported yet";

/// One element of a verdict list: a permission, and no list in the list.
struct Single(Verdict);

impl<'de> Deserialize<'de> for Single {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(SingleVisitor).map(Self)
    }
}

struct SingleVisitor;

impl<'de> Visitor<'de> for SingleVisitor {
    type Value = Verdict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        VerdictVisitor.expecting(f)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Verdict, E> {
        VerdictVisitor.visit_str(name)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<Verdict, A::Error> {
        Err(de::Error::custom(CONDITIONAL))
    }
}

/// A name as part of a label: quoted where it could be taken for something else.
fn quoted(name: &Name) -> std::borrow::Cow<'_, str> {
    if name.contains([' ', '=', '"']) { format!("{name:?}").into() } else { name.as_str().into() }
}

/// One rule. Two rules of one scope never have the same selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `rul_…`, or any name in a file; [`Rule::label`] takes its place where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Name>,
    /// The tenant, or `None` for a rule of the whole org.
    #[serde(default, rename = "tenant_id", alias = "tenant")]
    pub tenant: Option<Name>,
    /// Selector: the resource.
    #[serde(default, rename = "resource_id", alias = "resource")]
    pub resource: Option<Name>,
    /// Selector: the tool.
    #[serde(default, rename = "tool_name", alias = "tool")]
    pub tool: Option<Name>,
    /// Selector: the method.
    #[serde(default)]
    pub method: Option<Name>,
    /// What it says.
    pub permission: Verdict,
    /// An org rule that no tenant rule can override; its permission is always `disabled`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guardrail: bool,
}

impl Rule {
    /// What a rule is called: its id, else its scope and selector, such as `tenant=acme tool=restart`.
    /// No two rules of a set share that, and it stays when others are added or moved.
    #[must_use]
    pub fn label(&self) -> String {
        if let Some(id) = &self.id {
            return id.as_str().to_owned();
        }
        let named = [
            ("tenant", &self.tenant),
            ("resource", &self.resource),
            ("tool", &self.tool),
            ("method", &self.method),
        ];
        let parts: Vec<String> = named
            .into_iter()
            .filter_map(|(what, name)| name.as_ref().map(|name| format!("{what}={}", quoted(name))))
            .collect();
        if parts.is_empty() { "(everything)".to_owned() } else { parts.join(" ") }
    }

    /// The level that the selector puts the rule on.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::of_selector(self.tool.is_some(), self.resource.is_some(), self.method.is_some())
    }
}
