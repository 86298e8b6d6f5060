//! A document by its file's name or its URL, within bounds.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Url;

/// Longest document. The largest that are published have about this.
const BYTES_MAX: usize = 16 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Reads a document. `-` is standard input.
pub(super) async fn read(source: &str) -> anyhow::Result<String> {
    let bytes = match Url::parse(source) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => fetched(url).await?,
        _ if source == "-" => limited(std::io::stdin().lock(), "standard input")?,
        _ => limited(File::open(source).with_context(|| format!("cannot read {source}"))?, source)?,
    };
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{} is not text in UTF-8", shown(source)))
}

/// What messages say: a URL without what could be a secret.
pub(super) fn shown(source: &str) -> String {
    match Url::parse(source) {
        Ok(mut url) if url.has_host() => {
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        _ => source.to_owned(),
    }
}

fn limited(reader: impl std::io::Read, source: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(BYTES_MAX)? + 1;
    reader.take(limit).read_to_end(&mut bytes).with_context(|| format!("cannot read {source}"))?;
    if bytes.len() > BYTES_MAX { too_large(source) } else { Ok(bytes) }
}

async fn fetched(url: Url) -> anyhow::Result<Vec<u8>> {
    let source = shown(url.as_str());
    let failed =
        |e: reqwest::Error| anyhow::Error::from(e.without_url()).context(format!("cannot get {source}"));
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    let mut response = client.get(url).send().await.map_err(failed)?;
    if !response.status().is_success() {
        bail!("{source} answers {}", response.status());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > BYTES_MAX {
            return too_large(&source);
        }
    }
    Ok(bytes)
}

fn too_large(source: &str) -> anyhow::Result<Vec<u8>> {
    bail!("{source} is larger than {} MiB", BYTES_MAX >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_secret_is_not_shown() {
        let url = "https://me:secret@api.example.com/openapi.json?token=secret#secret";
        assert_eq!(shown(url), "https://api.example.com/openapi.json");
        assert_eq!(shown("docs/openapi.yaml"), "docs/openapi.yaml");
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        assert_eq!(limited(&b"abc"[..], "x").unwrap(), b"abc");
        let error = limited(std::io::repeat(b'x'), "x").unwrap_err();
        assert!(error.to_string().contains("larger than 16 MiB"), "{error}");
    }
}
