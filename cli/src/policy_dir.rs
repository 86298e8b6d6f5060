//! A policy as a directory of YAML files, fit for git.
//!
//! `policy.yaml` names the org, its tenants and categories; files under `tools/` list tools and files under `rules/`
//! rules. Which file says what is the author's choice: all of them together are the policy. Written anew, there is
//! one file of tools for each audience and one of rules for the org and each tenant, everything in order of names,
//! so that the same policy is always the same bytes.

mod yaml;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use oakallow_policy::document::{Document, Part};

/// The one file that must be there.
const MAIN: &str = "policy.yaml";
/// The directories beside it, and how deep they may go.
const BESIDE: [&str; 2] = ["tools", "rules"];
const DEPTH_MAX: usize = 8;

/// Reads and checks a whole directory.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Document> {
    let files = files(dir)?;
    let mut parts = Vec::with_capacity(files.len());
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        parts.push(Part::parse(&file.display().to_string(), &text)?);
    }
    Ok(Document::of_parts(&parts)?)
}

/// What writing came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Files that say something new.
    pub(crate) written: Vec<PathBuf>,
    /// Files that say the same, and were not touched: their comments stay.
    pub(crate) kept: usize,
    /// Files whose contents are elsewhere now, or gone.
    pub(crate) removed: Vec<PathBuf>,
}

/// Makes the directory say what the document says.
pub(crate) fn write(dir: &Path, document: &Document) -> anyhow::Result<Written> {
    refuse_strange(dir)?;
    let wanted: BTreeMap<PathBuf, String> =
        yaml::files(document)?.into_iter().map(|(name, text)| (dir.join(name), text)).collect();
    let mut done = Written::default();
    for (file, text) in &wanted {
        if says_already(file, text)? {
            done.kept += 1;
            continue;
        }
        let parent = file.parent().unwrap_or(dir);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        done.written.push(file.clone());
    }
    for file in files(dir)?.into_iter().filter(|file| !wanted.contains_key(file)) {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        done.removed.push(file);
    }
    Ok(done)
}

/// Whether the file says what the text says, in whatever words.
fn says_already(file: &Path, text: &str) -> anyhow::Result<bool> {
    let name = file.display().to_string();
    let present = match fs::read_to_string(file) {
        Ok(present) => present,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(|| format!("cannot read {name}")),
    };
    let wanted = Part::parse(&name, text)?;
    Ok(Part::parse(&name, &present).is_ok_and(|present| present.says_the_same_as(&wanted)))
}

/// A directory that is something else is nobody's to write into.
fn refuse_strange(dir: &Path) -> anyhow::Result<()> {
    let mut entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", dir.display()))?,
    };
    if !dir.join(MAIN).exists() && entries.next().is_some() {
        bail!(
            "{} is not empty and has no {MAIN}: name a directory that is new, or a policy's",
            dir.display()
        );
    }
    Ok(())
}

/// All files of the policy, in order.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let main = dir.join(MAIN);
    if !main.is_file() {
        bail!("{} is no policy: it has no {MAIN}", dir.display());
    }
    let mut found = vec![main];
    for beside in BESIDE.map(|name| dir.join(name)).iter().filter(|beside| beside.is_dir()) {
        collect(beside, 0, &mut found)?;
    }
    Ok(found)
}

/// A file that is not understood might be a rule that is missed, so it is refused.
fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if depth > DEPTH_MAX {
        bail!("{} is nested too deeply", dir.display());
    }
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        let extension = entry.extension().unwrap_or_default().to_string_lossy();
        match extension.as_ref() {
            _ if entry.is_dir() => collect(&entry, depth + 1, found)?,
            "yaml" | "yml" if !name.starts_with('.') => found.push(entry),
            _ if name.starts_with('.') || name == "README.md" => {}
            _ => bail!("{} is no YAML file: what stands there is a policy's alone", entry.display()),
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
