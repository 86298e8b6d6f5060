//! RFC 3339 text for the milliseconds that everything inside uses.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type UnixMs = u64;

/// `2026-11-24T04:10:17.123Z`: UTC, always three digits of a second, so that text sorts like time.
#[must_use]
pub fn rfc3339(unix_ms: UnixMs) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|at| at.format(&format).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
}

/// Reads any RFC 3339 time; `None` when it is not one, or lies before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<UnixMs> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(rfc3339(1_785_000_000_007), "2026-07-25T17:20:00.007Z");
        assert_eq!(parse_rfc3339("2026-07-25T19:20:00.007+02:00"), Some(1_785_000_000_007));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
