//! An OpenAPI document: read within bounds, and its references followed, inside the document only.

use anyhow::{Context as _, bail};
use oakallow_policy::document::from_yaml;
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Longest chain of references from one place to what it stands for.
const HOPS_MAX: usize = 16;

/// Which schemas the document has: OpenAPI 3.0 has a dialect of its own, 3.1 is JSON Schema 2020-12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V30,
    V31,
}

/// A document of a known version.
#[derive(Debug)]
pub(super) struct Document {
    root: Value,
    pub(super) dialect: Dialect,
}

impl Document {
    /// Reads JSON or YAML; `source` is only for errors.
    pub(super) fn parse(source: &str, text: &str) -> anyhow::Result<Self> {
        let root: Value = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).with_context(|| format!("{source} is not JSON"))?
        } else {
            from_yaml(source, text)?
        };
        if root.get("swagger").is_some() {
            bail!("{source} is Swagger 2.0: convert it to OpenAPI 3 first");
        }
        let dialect = match root.get("openapi").and_then(Value::as_str) {
            Some(version) if version.starts_with("3.0.") || version == "3.0" => Dialect::V30,
            Some(version) if version.starts_with("3.1.") || version == "3.1" => Dialect::V31,
            Some(other) => bail!("{source} is OpenAPI {other:?}; 3.0 and 3.1 can be read"),
            None => bail!("{source} is no OpenAPI document: it has no `openapi: 3.…`"),
        };
        Ok(Self { root, dialect })
    }

    /// The operations by path, with the path items as they stand.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&String, &Value)> {
        let paths = self.root.get("paths").and_then(Value::as_object);
        paths.into_iter().flatten().filter(|(path, _)| path.starts_with('/'))
    }

    /// What a reference leads to, by its JSON pointer.
    pub(super) fn target(&self, reference: &str) -> Result<&Value, String> {
        let Some(fragment) = reference.strip_prefix('#') else {
            return Err(format!("`{reference}` leads out of the document: bundle it into one file first"));
        };
        let pointer = percent_decode_str(fragment).decode_utf8_lossy();
        let found = self.root.pointer(&pointer).filter(|_| pointer.starts_with('/'));
        found.ok_or_else(|| format!("`{reference}` leads nowhere"))
    }

    /// The thing itself, where a reference may stand for it.
    pub(super) fn resolved<'d>(&'d self, mut value: &'d Value) -> Result<&'d Value, String> {
        for _ in 0..HOPS_MAX {
            match value.get("$ref").and_then(Value::as_str) {
                None => return Ok(value),
                Some(reference) => value = self.target(reference)?,
            }
        }
        Err("its references lead in a circle".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_says_which_version_it_is() {
        let dialect = |text: &str| Document::parse("x", text).map(|document| document.dialect);
        assert_eq!(dialect("openapi: 3.0.3\npaths: {}").unwrap(), Dialect::V30);
        assert_eq!(dialect("{\"openapi\": \"3.1.0\"}").unwrap(), Dialect::V31);
        for (text, why) in [
            ("swagger: '2.0'", "convert it"),
            ("openapi: 4.0.0", "can be read"),
            ("openapi: 3.1", "no OpenAPI document"),
            ("hello: world", "no OpenAPI document"),
            ("{", "not JSON"),
            ("a: [1", "x:"),
        ] {
            let error = format!("{:#}", dialect(text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn references_are_followed_inside_the_document_and_no_further() {
        let root = json!({"a": {"$ref": "#/b~1c%7B"}, "b/c{": {"x": 1}, "loop": {"$ref": "#/loop"},
            "out": {"$ref": "other.yaml#/x"}, "none": {"$ref": "#/nothing"}, "whole": {"$ref": "#"}});
        let document = Document { root: root.clone(), dialect: Dialect::V31 };
        let resolved = |name: &str| document.resolved(&root[name]).cloned();
        assert_eq!(resolved("a"), Ok(json!({"x": 1})));
        for (name, why) in
            [("loop", "circle"), ("out", "out of the document"), ("none", "nowhere"), ("whole", "nowhere")]
        {
            assert!(resolved(name).unwrap_err().contains(why), "{name}");
        }
    }
}
