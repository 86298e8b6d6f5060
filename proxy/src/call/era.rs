//! Which era of the Model Context Protocol a request speaks.

use http::HeaderMap;

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
    /// By the version header; a version is a date, so later ones sort behind.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let version = headers.get("mcp-protocol-version").and_then(|v| v.to_str().ok());
        if version.is_some_and(|v| v.trim() >= STATELESS) { Self::Stateless } else { Self::Sessions }
    }
}
