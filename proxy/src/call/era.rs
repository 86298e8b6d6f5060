//! Which era of the Model Context Protocol a request speaks.

use http::HeaderMap;
use serde_json::{Map, Value};

use crate::call::mcp::META_VERSION;

/// The first version without sessions.
pub const STATELESS: &str = "2026-07-28";

/// An era.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Up to 2025-11-25. Leaving is not a cancel.
    Sessions,
    /// From 2026-07-28. Leaving is a cancel.
    Stateless,
}

impl Era {
    /// By the version header.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        Self::of_version(headers.get("mcp-protocol-version").and_then(|v| v.to_str().ok()))
    }

    /// By the version in a message's `params`, where no header says it.
    #[must_use]
    pub fn of_params(params: &Map<String, Value>) -> Self {
        Self::of_version(params.get("_meta").and_then(|meta| meta.get(META_VERSION)?.as_str()))
    }

    /// A version is a date, so later ones sort behind.
    fn of_version(version: Option<&str>) -> Self {
        if version.is_some_and(|v| v.trim() >= STATELESS) { Self::Stateless } else { Self::Sessions }
    }
}
