//! `<data-dir>/dev.env`: the addresses and keys of the demo, for shells and scripts.
//!
//! It holds secrets that are shown once, so only its owner may read it, and a restart takes the keys
//! from it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};
use oakallow_policy::wire::Secret;

use super::private_file;

/// The keys, each shown once by the backend.
#[derive(Clone)]
pub(crate) struct Keys {
    /// Standard, tenancy `org`.
    pub(crate) org: Secret,
    /// Standard, tenant acme.
    pub(crate) acme: Secret,
    /// Standard, tenant globex.
    pub(crate) globex: Secret,
    /// Management.
    pub(crate) management: Secret,
    /// Approver.
    pub(crate) approver: Secret,
    /// Tool server.
    pub(crate) tool: Secret,
}

const KEY_NAMES: [&str; 6] = [
    "OAKALLOW_KEY",
    "OAKALLOW_ACME_KEY",
    "OAKALLOW_GLOBEX_KEY",
    "OAKALLOW_MANAGEMENT_KEY",
    "OAKALLOW_APPROVER_KEY",
    "OAKALLOW_TOOL_KEY",
];

impl Keys {
    fn in_order(&self) -> [&Secret; 6] {
        [&self.org, &self.acme, &self.globex, &self.management, &self.approver, &self.tool]
    }

    /// The keys of an earlier start; `None` when there was none.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Option<Self>> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
        };
        let written: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let key = |name: &str| match written.get(name) {
            Some(key) => Ok(Secret::new((*key).to_owned())),
            None => bail!("{} lacks {name}: delete the file to have new keys made", file.display()),
        };
        let [org, acme, globex, management, approver, tool] = KEY_NAMES;
        Ok(Some(Self {
            org: key(org)?,
            acme: key(acme)?,
            globex: key(globex)?,
            management: key(management)?,
            approver: key(approver)?,
            tool: key(tool)?,
        }))
    }
}

/// Where everything listens.
pub(crate) struct Urls {
    /// The proxy's data listener.
    pub(crate) proxy: String,
    /// The backend.
    pub(crate) backend: String,
    /// The proxy's admin listener.
    pub(crate) admin: String,
    /// The proxy's ops listener.
    pub(crate) ops: String,
    /// The demo tool server.
    pub(crate) tools: String,
    /// One-time login link of the approver.
    pub(crate) dashboard: String,
}

/// Writes the file: whole or not at all, for its owner only.
pub(crate) fn write(file: &Path, urls: &Urls, keys: &Keys) -> anyhow::Result<()> {
    private_file(file, &render(urls, keys))
}

fn render(urls: &Urls, keys: &Keys) -> String {
    let urls = [
        ("OAKALLOW_PROXY", &urls.proxy),
        ("OAKALLOW_BACKEND", &urls.backend),
        ("OAKALLOW_ADMIN", &urls.admin),
        ("OAKALLOW_OPS", &urls.ops),
        ("OAKALLOW_TOOLS", &urls.tools),
        ("OAKALLOW_DASHBOARD", &urls.dashboard),
    ];
    let keys = KEY_NAMES.into_iter().zip(keys.in_order().map(Secret::expose));
    let lines = urls.into_iter().map(|(name, url)| (name, url.as_str())).chain(keys);
    lines.map(|(name, value)| format!("{name}={}\n", quoted(value))).collect()
}

/// Quoted where a shell would read more into the value than its text.
pub(crate) fn quoted(value: &str) -> String {
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:/=?%+".contains(c));
    if plain { value.to_owned() } else { format!("'{}'", value.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn keys() -> Keys {
        let key = |name: &str| Secret::new(format!("oak_live_{name}"));
        Keys {
            org: key("o"),
            acme: key("a"),
            globex: key("g"),
            management: key("m"),
            approver: key("p"),
            tool: key("t"),
        }
    }

    fn urls() -> Urls {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        Urls {
            proxy: url(1),
            backend: url(2),
            admin: url(3),
            ops: url(4),
            tools: url(5),
            dashboard: "http://localhost:2/login?token=x=y".to_owned(),
        }
    }

    #[test]
    fn a_restart_finds_its_keys_and_nobody_else_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dev.env");
        assert!(Keys::read(&file).unwrap().is_none());
        write(&file, &urls(), &keys()).unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let found = Keys::read(&file).unwrap().unwrap();
        assert_eq!(found.in_order().map(Secret::expose), keys().in_order().map(Secret::expose));
    }

    #[test]
    fn half_a_file_is_an_error_that_names_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dev.env");
        fs::write(&file, "OAKALLOW_KEY=oak_live_x\n").unwrap();
        let error = Keys::read(&file).err().unwrap().to_string();
        assert!(error.contains("OAKALLOW_ACME_KEY"), "{error}");
    }
}
