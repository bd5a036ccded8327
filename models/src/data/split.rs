//! Holding rows out for validation.

use super::shuffle::permutation;
use crate::error::{Error, Result};
use crate::wording::counted;

/// How many rows are held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeldOut {
    /// That many.
    Count(usize),
    /// That share of all, rounded to the nearest number.
    Fraction(f64),
}

/// Splits rows into those to train on and those held out, each in their old order. Which are held out
/// depends on `seed` and the number of rows only.
///
/// # Errors
/// [`Error::Data`] if the share is not from 0 to below 1, or nothing would be left to train on.
pub fn split<T>(rows: Vec<T>, held_out: HeldOut, seed: u64) -> Result<(Vec<T>, Vec<T>)> {
    let total = rows.len();
    let count = match held_out {
        HeldOut::Count(count) => count,
        HeldOut::Fraction(share) if (0.0..1.0).contains(&share) => (share * total as f64).round() as usize,
        HeldOut::Fraction(share) => {
            let message = format!("held-out share is {share}; expected from 0 to below 1");
            return Err(Error::Data { message });
        }
    };
    if count > 0 && count >= total {
        let message = format!("{} held out of {total}: expected some to be left to train on", counted(count, "row"));
        return Err(Error::Data { message });
    }
    let mut is_held_out = vec![false; total];
    // The split's own order: no epoch has this number.
    for index in permutation(total, seed, u64::MAX).into_iter().take(count) {
        is_held_out[index] = true;
    }
    let (mut training, mut validation) = (Vec::new(), Vec::new());
    for (row, is_held_out) in rows.into_iter().zip(is_held_out) {
        if is_held_out { &mut validation } else { &mut training }.push(row);
    }
    Ok((training, validation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_held_out_by_count_or_share_and_by_seed() {
        let rows: Vec<_> = (0..100).collect();
        let by = |held_out, seed| split(rows.clone(), held_out, seed).unwrap();
        let (training, validation) = by(HeldOut::Fraction(0.1), 1);
        assert_eq!((training.len(), validation.len()), (90, 10));
        assert!(training.is_sorted() && validation.is_sorted());
        let mut all = [training, validation.clone()].concat();
        all.sort();
        assert_eq!(all, rows);
        assert_eq!(by(HeldOut::Count(10), 1).1, validation);
        assert_ne!(by(HeldOut::Count(10), 2).1, validation);
        assert!(by(HeldOut::Count(0), 1).1.is_empty());
    }

    #[test]
    fn nothing_left_to_train_on_is_an_error() {
        assert!(split(vec![1, 2], HeldOut::Count(2), 0).is_err());
        assert!(split(vec![1, 2], HeldOut::Fraction(1.0), 0).is_err());
        assert!(split(vec![1, 2], HeldOut::Fraction(f64::NAN), 0).is_err());
        assert!(split(Vec::<u8>::new(), HeldOut::Count(0), 0).is_ok());
    }
}
