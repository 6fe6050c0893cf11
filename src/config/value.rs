//! Values as people write them: `64KiB`, `25s`.

use std::time::Duration;

/// Bytes from an integer or a number with a unit, or `None`.
pub(super) fn parse_size(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// Bytes in the largest unit that leaves no rest.
pub(super) fn format_size(bytes: usize) -> String {
    let fits = |(name, factor): &(&str, usize)| !name.is_empty() && bytes.is_multiple_of(*factor);
    match UNITS.into_iter().find(fits) {
        Some((name, factor)) if bytes > 0 => format!("{}{name}", bytes / factor),
        _ => bytes.to_string(),
    }
}

/// A duration such as `25s`, `250ms` or `1m 30s`, or `None`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// A duration in the same form.
pub(super) fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

const UNITS: [(&str, usize); 5] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_integers_with_a_binary_unit_or_none() {
        for (text, bytes) in
            [("0", 0), ("65536", 65_536), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("7B", 7)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5MiB", "64kb", "64K", "99999999999999999999GiB", "1e3"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_formatted_parses_back(bytes in 0..usize::MAX, millis in 0..u64::MAX / 1000) {
            proptest::prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
            let duration = Duration::from_millis(millis);
            proptest::prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }
    }
}
