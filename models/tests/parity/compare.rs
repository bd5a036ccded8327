//! How two arrays are held against each other. Each says by how much they differ.

use std::fmt::Display;

use crate::Outcome;

/// No element further than `bound` from the reference's.
pub fn within(what: impl Display, got: &[f32], reference: &[f32], bound: f32) -> Outcome {
    same_length(&what, got, reference)?;
    let gap = |(got, reference): (&f32, &f32)| (got - reference).abs();
    match got.iter().zip(reference).map(gap).enumerate().find(|(_, gap)| gap.is_nan() || *gap > bound) {
        None => Ok(()),
        Some((at, gap)) => Err(format!(
            "{what}: {} at {at}, the reference has {}: {gap:.1e} apart, expected {bound:.0e}",
            got[at], reference[at]
        )
        .into()),
    }
}

/// ||got - reference|| at most `bound` of ||reference||.
pub fn relative(what: impl Display, got: &[f32], reference: &[f32], bound: f64) -> Outcome {
    same_length(&what, got, reference)?;
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let gap = norm(&mut got.iter().zip(reference).map(|(got, reference)| f64::from(got - reference)));
    let size = norm(&mut reference.iter().map(|x| f64::from(*x)));
    if gap <= bound * size {
        Ok(())
    } else {
        Err(format!("{what}: {gap:.1e} from a reference of norm {size:.1e}, expected {bound:.0e} of it").into())
    }
}

fn same_length(what: &impl Display, got: &[f32], reference: &[f32]) -> Outcome {
    let (got, expected) = (got.len(), reference.len());
    if got == expected { Ok(()) } else { Err(format!("{what}: {got} numbers, the reference has {expected}").into()) }
}
