//! One operation as a tool: its name, its arguments, and how bad a mistake would be.

use std::collections::BTreeMap;

use oakallow_policy::Tool;
use oakallow_policy::id::Name;
use oakallow_policy::rule::Permission;
use oakallow_policy::tool::{ApprovalSettings, ResourceUse, RiskLevel};
use serde_json::{Map, Value, json};

use super::super::Defaults;
use super::super::found::{DIALECT, described, tool_name};
use super::document::Document;
use super::schema::Schemas;

/// The methods of a path item, with the risk that each speaks for (safe methods: RFC 9110 section 9.2.1).
pub(super) const METHODS: [(&str, RiskLevel); 8] = [
    ("get", RiskLevel::Low),
    ("head", RiskLevel::Low),
    ("options", RiskLevel::Low),
    ("trace", RiskLevel::Low),
    ("post", RiskLevel::Medium),
    ("put", RiskLevel::Medium),
    ("patch", RiskLevel::Medium),
    ("delete", RiskLevel::High),
];
/// Header parameters that are none (OpenAPI 3.1, "Parameter Object").
const NO_PARAMETERS: [&str; 3] = ["accept", "content-type", "authorization"];

/// A tool, and what to tell about it.
type Read = (Tool, Vec<String>);

/// An operation where it stands.
pub(super) struct Operation<'d> {
    pub(super) path: &'d str,
    pub(super) method: &'d str,
    pub(super) risk: RiskLevel,
    pub(super) item: &'d Value,
    pub(super) written: &'d Value,
}

impl Operation<'_> {
    /// `GET /pets/{petId}`
    pub(super) fn origin(&self) -> String {
        format!("{} {}", self.method.to_uppercase(), self.path)
    }

    /// The tool that it makes, or why it makes none.
    pub(super) fn tool(&self, document: &Document, defaults: &Defaults) -> Result<Read, String> {
        let mut schemas = Schemas::new(document);
        let schema = self.arguments(document, &mut schemas)?;
        let mut notes = schemas.notes;
        let tool = Tool {
            name: tool_name(&self.name())?,
            audience: defaults.audience.clone(),
            description: self.description(),
            category: self.category(defaults, &mut notes),
            risk_level: self.risk,
            parameter_schema: Some(schema),
            default_permission: (self.risk > RiskLevel::Low).then_some(Permission::RequiresApproval),
            approved: false,
            enabled: true,
            resource: ResourceUse::Optional,
            approval: ApprovalSettings::default(),
        };
        Ok((tool, notes))
    }

    /// Its `operationId`, else method and path.
    fn name(&self) -> String {
        if let Some(id) = self.text("operationId").filter(|id| !id.is_empty()) {
            return id.to_owned();
        }
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.fold(self.method.to_owned(), |name, word| format!("{name}_{word}"))
    }

    fn description(&self) -> String {
        let texts = [self.text("summary"), self.text("description")];
        let texts: Vec<&str> = texts.into_iter().flatten().filter(|text| !text.trim().is_empty()).collect();
        described(&texts.join("\n\n"))
    }

    /// The first of its tags.
    fn category(&self, defaults: &Defaults, notes: &mut Vec<String>) -> Option<Name> {
        let tag = self.written.pointer("/tags/0").and_then(Value::as_str);
        match tag.map(Name::new) {
            None => defaults.category.clone(),
            Some(Ok(name)) => Some(name),
            Some(Err(reason)) => {
                notes.push(format!("its tag makes no category: {reason}"));
                defaults.category.clone()
            }
        }
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.written.get(member).and_then(Value::as_str)
    }

    /// An object with a member for each parameter, and `body` for the body.
    fn arguments(&self, document: &Document, schemas: &mut Schemas<'_>) -> Result<Value, String> {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for parameter in self.parameters(document)? {
            let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
            let plain = parameter.get("name").and_then(Value::as_str).ok_or("a parameter has no name")?;
            let name = if plain == BODY || properties.contains_key(plain) {
                format!("{place}_{plain}")
            } else {
                plain.to_owned()
            };
            if place == "path" || parameter.get("required") == Some(&Value::Bool(true)) {
                required.push(name.clone());
            }
            if properties.insert(name, parameter_schema(parameter, document, schemas)?).is_some() {
                return Err(format!("it has several parameters {plain:?}"));
            }
        }
        if let Some(body) = self.written.get("requestBody") {
            let body = document.resolved(body)?;
            properties.insert(BODY.to_owned(), content(body, document, schemas)?);
            if body.get("required") == Some(&Value::Bool(true)) {
                required.push(BODY.to_owned());
            }
        }
        let mut schema = json!({"$schema": DIALECT, "type": "object", "properties": properties,
            "required": required, "additionalProperties": false});
        let definitions = schemas.definitions()?;
        if let (false, Some(members)) = (definitions.is_empty(), schema.as_object_mut()) {
            members.insert("$defs".to_owned(), Value::Object(definitions));
        }
        Ok(schema)
    }

    /// Those of the path and its own, which stand in for a path's of the same name and place. Cookies are
    /// credentials, and no argument of a model's.
    fn parameters<'d>(&'d self, document: &'d Document) -> Result<Vec<&'d Value>, String> {
        let mut parameters = BTreeMap::new();
        for holder in [self.item, self.written] {
            for parameter in holder.get("parameters").and_then(Value::as_array).into_iter().flatten() {
                let parameter = document.resolved(parameter)?;
                let text = |member: &str| parameter.get(member).and_then(Value::as_str).unwrap_or_default();
                let (place, name) = (text("in"), text("name"));
                let ignored = place == "header" && NO_PARAMETERS.contains(&name.to_lowercase().as_str());
                match place {
                    _ if ignored => {}
                    "path" => drop(parameters.insert((0, name), parameter)),
                    "query" => drop(parameters.insert((1, name), parameter)),
                    "header" => drop(parameters.insert((2, name), parameter)),
                    "cookie" => {}
                    other => return Err(format!("its parameter {name:?} is in {other:?}")),
                }
            }
        }
        Ok(parameters.into_values().collect())
    }
}

const BODY: &str = "body";

fn parameter_schema(
    parameter: &Value,
    document: &Document,
    schemas: &mut Schemas<'_>,
) -> Result<Value, String> {
    let mut schema = match parameter.get("schema") {
        Some(schema) => schemas.convert(schema)?,
        None => content(parameter, document, schemas)?,
    };
    let description = parameter.get("description").and_then(Value::as_str);
    if let (Some(description), Some(members)) = (description, schema.as_object_mut()) {
        members.insert("description".to_owned(), description.into());
    }
    Ok(schema)
}

/// The schema of a body: that of JSON where there is one.
fn content(body: &Value, document: &Document, schemas: &mut Schemas<'_>) -> Result<Value, String> {
    let Some(content) = body.get("content").and_then(Value::as_object) else { return Ok(json!({})) };
    let json = content.iter().find(|(media, _)| {
        let media = media.split(';').next().unwrap_or_default().trim();
        media == "application/json" || media.ends_with("+json")
    });
    let Some((_, media)) = json.or_else(|| content.iter().next()) else { return Ok(json!({})) };
    document.resolved(media)?.get("schema").map_or_else(|| Ok(json!({})), |schema| schemas.convert(schema))
}
