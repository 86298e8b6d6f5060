//! Routes: which requests the proxy knows, and what in them names the tool, the resource, the method.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, Uri};
use oakallow_policy::id::Name;
use serde::Deserialize;

use crate::forward::Link;

/// How a route's calls look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// One HTTP request a call; the path names the tool.
    Http,
    /// JSON-RPC of the Model Context Protocol (streamable HTTP).
    Mcp,
    /// The same over the standard input and output of a server that the proxy starts.
    Stdio,
}

impl RouteKind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mcp => "mcp",
            Self::Stdio => "stdio",
        }
    }
}

/// A route as used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is documented where it is written, in docs/guide/proxy.md")]
pub struct Route {
    pub name: Name,
    pub kind: RouteKind,
    pub pattern: Pattern,
    pub methods: Vec<Method>,
    pub audience: Name,
    pub token_audiences: Option<Vec<String>>,
    pub upstream: Uri,
    pub link: Link,
    pub resources: BTreeMap<Name, String>,
    pub method_pointers: BTreeMap<Name, String>,
    pub hold_budget: Duration,
    pub comment_every: Duration,
    pub progress_every: Duration,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    pub idle_timeout: Duration,
    pub hide_disabled: bool,
}

/// A path with at most one `{tool}` segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Tool,
}

/// A path that matched, and the tool it names.
#[derive(Debug, PartialEq, Eq)]
pub struct Matched<'p> {
    /// The `{tool}` segment, if the pattern has one.
    pub tool: Option<&'p str>,
}

impl Pattern {
    /// Reads `/tools/{tool}`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix('/').ok_or("a path starts with a slash")?;
        let segments = rest
            .split('/')
            .map(|segment| match segment {
                "{tool}" => Ok(Segment::Tool),
                s if s.contains(['{', '}']) => Err("the only placeholder is {tool}"),
                s => Ok(Segment::Literal(s.to_owned())),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if segments.iter().filter(|s| **s == Segment::Tool).count() > 1 {
            return Err("{tool} stands once");
        }
        Ok(Self { segments })
    }

    /// Matches no path at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self { segments: Vec::new() }
    }

    /// Whether it has a `{tool}` segment.
    #[must_use]
    pub fn has_tool(&self) -> bool {
        self.segments.contains(&Segment::Tool)
    }

    /// Matches a path that [`check_path`] has let pass.
    #[must_use]
    pub fn matches<'p>(&self, path: &'p str) -> Option<Matched<'p>> {
        let found: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        if found.len() != self.segments.len() {
            return None;
        }
        let mut tool = None;
        for (segment, text) in self.segments.iter().zip(found) {
            match segment {
                Segment::Tool if !text.is_empty() => tool = Some(text),
                Segment::Literal(literal) if literal == text => {}
                _ => return None,
            }
        }
        Some(Matched { tool })
    }
}

/// Refuses paths that the tool server might read otherwise than we do: percent-encoding of anything,
/// dot segments, backslashes, parameters, empty segments.
pub fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("the request target is not an absolute path");
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.~:@!$&'()*+,=".contains(&b)) {
        return Err("the path has a character that is percent-encoded or must be");
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == "." || segment == ".." {
            return Err("the path has a dot segment");
        }
        if segment.is_empty() && path != "/" && segments.peek().is_some() {
            return Err("the path has an empty segment");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_readers_disagree_on_are_refused() {
        for bad in ["/a/../b", "/a/./b", "//a", "/a//b", "/a%2fb", "/a%5cb", "/a\\b", "/a;x=1", "*", "a"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        for good in ["/", "/tools/read_record", "/tools/a.b", "/mcp"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_tool_is_one_segment() {
        let pattern = Pattern::parse("/tools/{tool}").unwrap();
        assert_eq!(pattern.matches("/tools/x"), Some(Matched { tool: Some("x") }));
        assert_eq!(pattern.matches("/tools/"), None);
        assert_eq!(pattern.matches("/tools/x/y"), None);
        assert_eq!(pattern.matches("/Tools/x"), None);
        assert_eq!(Pattern::nothing().matches("/"), None);
        assert!(Pattern::parse("/{tool}/{tool}").is_err());
        assert!(Pattern::parse("/{other}").is_err());
    }
}
