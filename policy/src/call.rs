//! What is being decided: one tool call, reduced to the names that rules can select.

use serde::{Deserialize, Serialize};

use crate::id::Name;

/// A call as resolution sees it. Borrowed, so that deciding allocates nothing.
///
/// All names must be in the normal form of [`crate::id::normalise`]; build it from [`CallNames`] or
/// normalise first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The org that the credential belongs to.
    pub org: &'a str,
    /// The tenant, when the call names one.
    pub tenant: Option<&'a str>,
    /// Who calls: an agent or key id.
    pub principal: &'a str,
    /// The tool server that the call goes to.
    pub audience: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// What the tool acts on.
    pub resource: Option<&'a str>,
    /// The kind of act.
    pub method: Option<&'a str>,
}

/// The owned form of a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallNames {
    /// See [`Call::org`].
    pub org: Name,
    /// See [`Call::tenant`].
    #[serde(default)]
    pub tenant: Option<Name>,
    /// See [`Call::principal`].
    pub principal: Name,
    /// See [`Call::audience`].
    pub audience: Name,
    /// See [`Call::tool`].
    pub tool: Name,
    /// See [`Call::resource`].
    #[serde(default)]
    pub resource: Option<Name>,
    /// See [`Call::method`].
    #[serde(default)]
    pub method: Option<Name>,
}

impl CallNames {
    /// Borrows the names for resolution.
    #[must_use]
    pub fn as_call(&self) -> Call<'_> {
        Call {
            org: &self.org,
            tenant: self.tenant.as_deref(),
            principal: &self.principal,
            audience: &self.audience,
            tool: &self.tool,
            resource: self.resource.as_deref(),
            method: self.method.as_deref(),
        }
    }
}
