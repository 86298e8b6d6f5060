//! Tools of an OpenAPI document: one for each operation.

mod document;
mod operation;
mod schema;

use anyhow::bail;

use self::document::Document;
use self::operation::{METHODS, Operation};
use super::Defaults;
use super::found::Found;

/// More operations than any service that people describe has.
const OPERATIONS_MAX: usize = 5_000;

/// What the document offers; `source` is only for errors.
pub(super) fn read(source: &str, text: &str, defaults: &Defaults) -> anyhow::Result<Found> {
    let document = Document::parse(source, text)?;
    let mut found = Found::default();
    for operation in operations(&document, &mut found) {
        let origin = operation.origin();
        match operation.tool(&document, defaults) {
            Ok((tool, notes)) => found.add(tool, origin, notes),
            Err(reason) => found.refuse(origin, reason),
        }
        if found.len() > OPERATIONS_MAX {
            bail!("{source} has more than {OPERATIONS_MAX} operations");
        }
    }
    found.refuse_clashes();
    Ok(found)
}

fn operations<'d>(document: &'d Document, found: &mut Found) -> Vec<Operation<'d>> {
    let mut operations = Vec::new();
    for (path, item) in document.paths() {
        match document.resolved(item) {
            Err(reason) => found.refuse(path.clone(), reason),
            Ok(item) => operations.extend(METHODS.iter().filter_map(|(method, risk)| {
                Some(Operation { path, method, risk: *risk, item, written: item.get(*method)? })
            })),
        }
    }
    operations
}
