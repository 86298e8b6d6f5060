//! What a source offers: tools, and what cannot be one.

use std::collections::{BTreeMap, BTreeSet};

use oakallow_backend::parameter_schema;
use oakallow_policy::id::Name;
use oakallow_policy::{Tool, secret, strict_json};

/// The one dialect of parameter schemas.
pub(super) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Longest description that the backend takes.
const DESCRIPTION_BYTES_MAX: usize = 16 * 1024;

/// A tool, and where it comes from.
#[derive(Debug)]
pub(super) struct FoundTool {
    pub(super) tool: Tool,
    /// As people know it: `GET /pets`.
    pub(super) origin: String,
    /// What to know about it.
    pub(super) notes: Vec<String>,
}

/// Everything that a source offers.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By name, each name once.
    pub(super) tools: Vec<FoundTool>,
    /// What cannot be a tool, and why.
    pub(super) refused: Vec<(String, String)>,
}

impl Found {
    /// How much was found, of both kinds.
    pub(super) fn len(&self) -> usize {
        self.tools.len() + self.refused.len()
    }

    /// Takes a tool in, unless the backend would refuse it.
    pub(super) fn add(&mut self, tool: Tool, origin: String, notes: Vec<String>) {
        match check(&tool) {
            Ok(()) => self.tools.push(FoundTool { tool, origin, notes }),
            Err(reason) => self.refuse(origin, reason),
        }
    }

    /// Notes what cannot be a tool.
    pub(super) fn refuse(&mut self, origin: String, reason: String) {
        self.refused.push((origin, reason));
    }

    /// Two of one name: neither is taken, since rules could not tell them apart. Sorts by name.
    pub(super) fn refuse_clashes(&mut self) {
        let mut by_name: BTreeMap<Name, Vec<FoundTool>> = BTreeMap::new();
        for found in std::mem::take(&mut self.tools) {
            by_name.entry(found.tool.name.clone()).or_default().push(found);
        }
        for (name, mut found) in by_name {
            if found.len() == 1 {
                self.tools.append(&mut found);
                continue;
            }
            for one in &found {
                let others: Vec<&str> =
                    found.iter().map(|f| f.origin.as_str()).filter(|o| *o != one.origin).collect();
                let others = if others.is_empty() { "another".to_owned() } else { others.join(", ") };
                self.refuse(one.origin.clone(), format!("its name `{name}` is that of {others} too"));
            }
        }
    }

    /// The categories that the tools are in.
    pub(super) fn categories(&self) -> BTreeSet<&Name> {
        self.tools.iter().filter_map(|found| found.tool.category.as_ref()).collect()
    }
}

/// A name as calls have to spell it. One that looks like a secret is not repeated.
pub(super) fn tool_name(text: &str) -> Result<Name, String> {
    if secret::is_in(text) {
        return Err("its name looks like a secret".to_owned());
    }
    Name::exact(text).map_err(|e| format!("its name {text:?} cannot be one: {e}"))
}

/// A description, cut where it would be too long to be kept.
pub(super) fn described(text: &str) -> String {
    let text = text.trim();
    if text.len() <= DESCRIPTION_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=DESCRIPTION_BYTES_MAX - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", text.get(..end.unwrap_or_default()).unwrap_or_default())
}

/// What the backend would say against it.
fn check(tool: &Tool) -> Result<(), String> {
    let Some(schema) = &tool.parameter_schema else { return Ok(()) };
    if strict_json::is_too_deep(schema) {
        return Err(format!("its schema is nested deeper than {}", strict_json::CALL_DEPTH_MAX));
    }
    parameter_schema::check(schema).map_err(|reason| format!("its schema cannot be used: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_calls_can_spell_and_a_secret_is_not_repeated() {
        assert_eq!(tool_name("pets.list").unwrap().as_str(), "pets.list");
        assert!(tool_name(" pets").unwrap_err().contains("\" pets\""));
        let key = "oak_live_0123456789abcdef0123456789abcdef";
        assert!(!tool_name(key).unwrap_err().contains("0123456789"));
    }

    #[test]
    fn a_description_is_cut_between_characters() {
        let long = described(&"é".repeat(DESCRIPTION_BYTES_MAX));
        assert!(long.len() <= DESCRIPTION_BYTES_MAX && long.ends_with("é…"));
        assert_eq!(described("  short\n"), "short");
    }
}
