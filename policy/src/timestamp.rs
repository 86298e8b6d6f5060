//! RFC 3339 text for the milliseconds that everything inside uses.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type UnixMs = u64;

/// `2026-11-24T04:10:17.123Z`: UTC, always three digits of a second, so that text sorts like time.
#[must_use]
pub fn rfc3339(unix_ms: UnixMs) -> String {
    let Some(at) = in_range(unix_ms) else { return "9999-12-31T23:59:59.999Z".to_owned() };
    // By hand: each event has one, and a format that is read anew each time takes ten times as long.
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let [y1, y2, y3, y4, _, mo1, mo2, _, d1, d2, _, h1, h2, _, mi1, mi2, _, s1, s2, _, ms1, ms2, ms3, _] =
        &mut text;
    put(&mut [y1, y2, y3, y4], at.year().unsigned_abs());
    put(&mut [mo1, mo2], u8::from(at.month()).into());
    put(&mut [d1, d2], at.day().into());
    put(&mut [h1, h2], at.hour().into());
    put(&mut [mi1, mi2], at.minute().into());
    put(&mut [s1, s2], at.second().into());
    put(&mut [ms1, ms2, ms3], at.millisecond().into());
    String::from_utf8_lossy(&text).into_owned()
}

/// Years of four digits.
fn in_range(unix_ms: UnixMs) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok()
}

/// Decimal digits, with zeros before them.
fn put(places: &mut [&mut u8], mut number: u32) {
    for place in places.iter_mut().rev() {
        **place += (number % 10) as u8;
        number /= 10;
    }
}

/// Reads any RFC 3339 time; `None` when it is not one, or lies before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<UnixMs> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::format_description;

    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(rfc3339(1_785_000_000_007), "2026-07-25T17:20:00.007Z");
        assert_eq!(parse_rfc3339("2026-07-25T19:20:00.007+02:00"), Some(1_785_000_000_007));
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(253_402_300_800_000), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_what_the_library_writes(ms in 0..253_402_300_800_000_u64) {
            let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
            let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
            proptest::prop_assert_eq!(rfc3339(ms), at.format(&format).unwrap());
        }
    }
}
