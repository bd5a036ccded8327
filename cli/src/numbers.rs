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

/// What random numbers are drawn from.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// A token's id, of a list.
pub fn token_id(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| "expected token ids separated by commas, as 1,2,3".into())
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

/// A number from 0 to below 0.5.
pub fn below_half(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..0.5).contains(&value), "from 0 to below 0.5")
}

/// 0, or a number above 1.
pub fn zero_or_above_one(text: &str) -> Result<f64, String> {
    number(text, |value| value == 0.0 || value > 1.0, "above 1, or 0")
}

/// A number above 0 and up to 1.
pub fn share(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value <= 1.0, "above 0 and up to 1")
}

/// Numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct List(pub Vec<f64>);

/// Finite numbers separated by commas.
pub fn number_list(text: &str) -> Result<List, String> {
    let number = |part: &str| part.trim().parse().ok().filter(|number: &f64| number.is_finite());
    let all: Option<Vec<f64>> = text.split(',').map(number).collect();
    all.map(List).ok_or_else(|| "expected numbers separated by commas, as 1,0.5".into())
}

/// A number that f32 can hold too, where `fits`.
fn number(text: &str, fits: impl Fn(f64) -> bool, which: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if fits(value) && value.abs() <= f64::from(f32::MAX) => Ok(value),
        Ok(value) if fits(value) => Err(format!("expected a number {which}, at most {:.1e}", f32::MAX)),
        _ => Err(format!("expected a number {which}")),
    }
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
        assert_eq!(above_zero("1e300"), Err("expected a number above 0, at most 3.4e38".into()));
        for text in ["0", "NaN", "-inf", "-1", "x"] {
            assert_eq!(above_zero(text), Err("expected a number above 0".into()), "{text}");
        }
        assert_eq!((at_least_zero("0"), below_one("0"), share("1")), (Ok(0.0), Ok(0.0), Ok(1.0)));
        assert!(below_one("1").is_err() && share("0").is_err() && at_least_zero("-0.1").is_err());
    }
}
