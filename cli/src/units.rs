//! Figures for readers: three digits and a unit.

/// Seconds.
pub fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds >= 1.0 => format!("{} s", digits(seconds)),
        _ if seconds >= 1e-3 => format!("{} ms", digits(1e3 * seconds)),
        _ => format!("{} µs", digits(1e6 * seconds)),
    }
}

/// Operations a second, given in units of 10^12.
pub fn flops_rate(tflops: f64) -> String {
    match tflops {
        _ if tflops >= 1.0 => format!("{} TFLOP/s", digits(tflops)),
        _ if tflops >= 1e-3 => format!("{} GFLOP/s", digits(1e3 * tflops)),
        _ => format!("{} MFLOP/s", digits(1e6 * tflops)),
    }
}

/// Bytes a second, given in units of 10^9.
pub fn byte_rate(gigabytes: f64) -> String {
    if gigabytes >= 1000.0 { format!("{} TB/s", digits(gigabytes / 1000.0)) } else { format!("{} GB/s", digits(gigabytes)) }
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// An error relative to 1.
pub fn error(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}

/// A number in three digits, as many before the point as it has.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_the_unit_that_fits() {
        assert_eq!([1.5, 0.0123, 4.2e-6, 9.9951e-4].map(duration), ["1.50 s", "12.3 ms", "4.20 µs", "1000 µs"]);
        assert_eq!([0.313, 72.0].map(flops_rate), ["313 GFLOP/s", "72.0 TFLOP/s"]);
        assert_eq!([9.7, 3400.0].map(byte_rate), ["9.70 GB/s", "3.40 TB/s"]);
        assert_eq!((percent(0.534), error(2.34e-7), error(0.0)), ("53 %".into(), "2.3e-7".into(), "0".into()));
    }
}
