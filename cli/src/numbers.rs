//! Numbers on the command line: each option says what it takes, and that is checked before anything is read or allocated.

use std::ops::RangeInclusive;

/// Tokens that an option may ask for: more than any text has, and few enough to count with.
pub const MOST_TOKENS: usize = 1 << 24;

/// A whole number of a range.
pub fn whole(range: RangeInclusive<usize>) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let expected = || format!("expected a whole number from {} to {}", range.start(), range.end());
        text.parse().ok().filter(|value| range.contains(value)).ok_or_else(expected)
    }
}

/// A number above 0.
pub fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0, "above 0")
}

/// A number from 0.
pub fn at_least_zero(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0, "from 0")
}

/// A number from 0 to below 1.
pub fn below_one(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..1.0).contains(&value), "from 0 to below 1")
}

/// A number above 0 and up to 1.
pub fn share(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value <= 1.0, "above 0 and up to 1")
}

/// A number that f32 can hold too, where `fits`.
fn number(text: &str, fits: impl Fn(f64) -> bool, which: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|value: &f64| value.abs() <= f64::from(f32::MAX) && fits(*value));
    found.ok_or_else(|| format!("expected a number {which}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_or_no_number_is_told_what_was_expected() {
        let steps = whole(1..=100);
        assert_eq!(steps("100"), Ok(100));
        for text in ["0", "101", "-1", "1.5", "18446744073709551616", "", "many"] {
            assert_eq!(steps(text), Err("expected a whole number from 1 to 100".into()), "{text}");
        }
        for text in ["0", "NaN", "inf", "1e300", "-1", "x"] {
            assert_eq!(above_zero(text), Err("expected a number above 0".into()), "{text}");
        }
        assert_eq!((at_least_zero("0"), below_one("0"), share("1")), (Ok(0.0), Ok(0.0), Ok(1.0)));
        assert!(below_one("1").is_err() && share("0").is_err() && at_least_zero("-0.1").is_err());
    }
}
