//! The nearest matrix of a rank (Eckart and Young 1936): of the singular values, the largest.
//!
//! Vectors are in f64 on the host; products with a whole matrix are the device's, in f32.

use wgtune_engine::random::Philox;
use wgtune_engine::{Tensor, ops};

use crate::error::Result;

/// Vectors of one length: the columns of a left factor, or the rows of a right one.
pub(super) type Vectors = Vec<Vec<f64>>;

#[derive(Clone)]
/// A sum of outer products: the i-th of the left vectors, as a column, times the i-th of the right ones, as a row.
pub(super) struct Factors {
    /// Of the rows' length.
    pub left: Vectors,
    /// Of the columns' length.
    pub right: Vectors,
}

impl Factors {
    /// The square of the Frobenius norm: sum_ij (l_i . l_j) (r_i . r_j). What cancels in it is lost below 1e-16 of the terms.
    pub fn square(&self) -> f64 {
        let [left, right] = [gram(&self.left), gram(&self.right)];
        left.iter().flatten().zip(right.iter().flatten()).map(|(a, b)| a * b).sum::<f64>().max(0.0)
    }

    /// The difference to others of the same shape.
    pub fn minus(&self, others: &Factors) -> Factors {
        let negative = others.left.iter().map(|vector| vector.iter().map(|value| -value).collect());
        let left = self.left.iter().cloned().chain(negative).collect();
        Factors { left, right: self.right.iter().chain(&others.right).cloned().collect() }
    }

    /// The nearest sum of so many outer products at most, both sides of each of one length.
    pub fn truncated(&self, rank: usize) -> Factors {
        let basis = orthonormal(&self.left);
        let inside: Vectors = basis.iter().map(|vector| self.left.iter().map(|left| dot(vector, left)).collect()).collect();
        truncated(&basis, &combined(&inside, &self.right), rank)
    }
}

/// The nearest sum of so many outer products at most to a matrix D [rows, columns], by subspace iteration from random vectors (Halko,
/// Martinsson and Tropp 2011, arXiv:0909.4061, algorithm 4.4).
///
/// It goes on until the subspace gains less than a millionth of |D|^2 by a further product with D D^T. That is as exact as the
/// products, 1e-6 of the largest singular value, where singular values fall; where many are alike, so are the matrices to choose from.
pub(super) fn nearest(matrix: &Tensor, rank: usize) -> Result<Factors> {
    /// Beyond which a spectrum is too flat for more to matter.
    const MOST_PASSES: usize = 32;
    let [rows, columns] = [matrix.size(0), matrix.size(1)];
    // Twice the rank: what converges slowly is behind what is kept.
    let width = (2 * rank + 8).min(rows).min(columns);
    let tensor = |vectors: &Vectors| {
        let values: Vec<f32> = vectors.iter().flatten().map(|value| *value as f32).collect();
        matrix.device().tensor(&values, [vectors.len(), values.len() / vectors.len().max(1)])
    };
    let random = Philox::new(0x73_7664);
    let drawn = |vector: usize| (0..columns as u64).map(|place| f64::from(random.stream(vector as u64).normal(place))).collect();
    let mut right: Vectors = (0..width).map(drawn).collect();
    let mut held = 0.0;
    for pass in 1.. {
        let left = orthonormal(&vectors(&ops::linear(&tensor(&right), matrix))?);
        if left.is_empty() {
            return Ok(Factors { left, right: Vec::new() });
        }
        right = vectors(&ops::matmul(&tensor(&left), matrix))?;
        let now: f64 = right.iter().map(|vector| dot(vector, vector)).sum();
        if now <= held * (1.0 + 1e-6) || pass == MOST_PASSES {
            return Ok(truncated(&left, &right, rank));
        }
        held = now;
        right = orthonormal(&right);
    }
    unreachable!("the last pass returns")
}

/// The rows of a matrix.
pub(super) fn vectors(matrix: &Tensor) -> Result<Vectors> {
    let values = matrix.to_vec()?;
    Ok(values.chunks(matrix.size(1).max(1)).map(|row| row.iter().copied().map(f64::from).collect()).collect())
}

/// The nearest sum of so many outer products at most to that of an orthonormal basis with the right vectors. With C their matrix, and
/// C C^T = V S^2 V^T, it is (basis V) (V^T C) of the largest S.
fn truncated(basis: &[Vec<f64>], right: &[Vec<f64>], rank: usize) -> Factors {
    let (squares, directions) = eigen(gram(right));
    let mut factors = Factors { left: combined(&directions[..rank.min(squares.len())], basis), right: Vec::new() };
    factors.right = combined(&directions[..rank.min(squares.len())], right);
    for ((left, right), square) in factors.left.iter_mut().zip(&mut factors.right).zip(&squares) {
        // The fourth root of the square: half of the singular value to each side.
        let half = square.max(0.0).powf(0.25);
        left.iter_mut().for_each(|value| *value *= half);
        right.iter_mut().for_each(|value| *value *= if half > 0.0 { 1.0 / half } else { 0.0 });
    }
    factors
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn gram(vectors: &[Vec<f64>]) -> Vectors {
    vectors.iter().map(|a| vectors.iter().map(|b| dot(a, b)).collect()).collect()
}

fn add_scaled(to: &mut [f64], from: &[f64], factor: f64) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

/// Sums of the vectors, each by its own weights.
fn combined(weights: &[Vec<f64>], vectors: &[Vec<f64>]) -> Vectors {
    let length = vectors.first().map_or(0, Vec::len);
    let sum = |weights: &Vec<f64>| {
        let mut sum = vec![0.0; length];
        weights.iter().zip(vectors).for_each(|(weight, vector)| add_scaled(&mut sum, vector, *weight));
        sum
    };
    weights.iter().map(sum).collect()
}

/// An orthonormal basis of what the vectors span, by Gram and Schmidt, each twice: the second takes what rounding left of the first.
fn orthonormal(vectors: &[Vec<f64>]) -> Vectors {
    let mut basis: Vectors = Vec::new();
    for vector in vectors {
        let mut left = vector.clone();
        for _ in 0..2 {
            for known in &basis {
                let share = dot(known, &left);
                add_scaled(&mut left, known, -share);
            }
        }
        let (length, before) = (dot(&left, &left).sqrt(), dot(vector, vector).sqrt());
        // Of a vector within the span of others, only rounding is left.
        if length > 1e-12 * before {
            left.iter_mut().for_each(|value| *value /= length);
            basis.push(left);
        }
    }
    basis
}

/// The eigenvalues of a symmetric matrix, the largest first, and their eigenvectors: Jacobi's rotations, row by row of the upper
/// triangle, until it is zero to rounding (Golub and Van Loan, Matrix Computations, section 8.5).
fn eigen(mut matrix: Vectors) -> (Vec<f64>, Vectors) {
    let size = matrix.len();
    let mut vectors: Vectors = (0..size).map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    // Converges in the square: more than ten sweeps are never met.
    for _ in 0..30 {
        let scale: f64 = (0..size).map(|i| matrix[i][i].abs()).fold(0.0, f64::max);
        let mut is_done = true;
        for p in 0..size {
            for q in p + 1..size {
                if matrix[p][q].abs() > 1e-15 * scale {
                    is_done = false;
                    rotate(&mut matrix, &mut vectors, p, q);
                }
            }
        }
        if is_done {
            break;
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| matrix[b][b].total_cmp(&matrix[a][a]));
    (order.iter().map(|&i| matrix[i][i]).collect(), order.iter().map(|&i| vectors[i].clone()).collect())
}

/// Turns the axes p and q so that the element between them is zero.
fn rotate(matrix: &mut Vectors, vectors: &mut Vectors, p: usize, q: usize) {
    let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
    let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let turn = |p: &mut f64, q: &mut f64| (*p, *q) = (cosine * *p - sine * *q, sine * *p + cosine * *q);
    for row in matrix.iter_mut() {
        let [p, q] = row.get_disjoint_mut([p, q]).expect("two places of a row");
        turn(p, q);
    }
    for rows in [&mut *matrix, vectors] {
        let [p, q] = rows.get_disjoint_mut([p, q]).expect("two rows");
        p.iter_mut().zip(q).for_each(|(p, q)| turn(p, q));
    }
    // But for rounding.
    (matrix[p][q], matrix[q][p]) = (0.0, 0.0);
}

#[cfg(test)]
mod tests {
    use wgtune_engine::Device;

    use super::*;

    /// Orthonormal vectors.
    fn basis(count: usize, length: usize, seed: u64) -> Vectors {
        let random = Philox::new(seed);
        let drawn = |i: usize| (0..length).map(|j| f64::from(random.normal((i * length + j) as u64))).collect();
        orthonormal(&(0..count).map(drawn).collect::<Vectors>())
    }

    /// Factors of these singular values.
    fn of(values: &[f64], [rows, columns]: [usize; 2]) -> Factors {
        let mut left = basis(values.len(), rows, 1);
        left.iter_mut().zip(values).for_each(|(vector, value)| vector.iter_mut().for_each(|element| *element *= value));
        Factors { left, right: basis(values.len(), columns, 2) }
    }

    fn matrix(device: &Device, factors: &Factors, [rows, columns]: [usize; 2]) -> Tensor {
        let element = |i: usize, j: usize| factors.left.iter().zip(&factors.right).map(|(l, r)| l[i] * r[j]).sum::<f64>() as f32;
        let values: Vec<f32> = (0..rows * columns).map(|at| element(at / columns, at % columns)).collect();
        device.tensor(&values, [rows, columns])
    }

    fn length(values: &[f64]) -> f64 {
        values.iter().map(|value| value * value).sum::<f64>().sqrt()
    }

    #[test]
    fn a_matrix_of_rank_three_is_found() {
        for shape in [[40, 25], [25, 40], [3, 70]] {
            let known = of(&[5.0, 2.0, 0.25], shape);
            let found = nearest(&matrix(&Device::cpu(), &known, shape), 3).unwrap();
            // Elements in f32, of a matrix whose largest singular value is 5.
            assert!(known.minus(&found).square().sqrt() < 1e-5, "{shape:?}");
            assert!(known.minus(&known.truncated(3)).square().sqrt() < 1e-6, "{shape:?}");
        }
    }

    #[test]
    fn what_a_truncation_is_off_by_are_the_values_that_it_drops() {
        let values: Vec<f64> = (0..24).map(|i| 0.7_f64.powi(i)).collect();
        let shape = [48, 30];
        let known = of(&values, shape);
        let tensor = matrix(&Device::cpu(), &known, shape);
        for rank in [1, 3, 8] {
            let dropped = length(&values[rank..]);
            for found in [nearest(&tensor, rank).unwrap(), known.truncated(rank)] {
                assert_eq!((found.left.len(), found.right.len()), (rank, rank));
                // The iteration ends at a millionth of the square.
                assert!((known.minus(&found).square().sqrt() / dropped - 1.0).abs() < 1e-4, "{rank}");
            }
        }
    }

    #[test]
    fn a_flat_spectrum_is_cut_as_well_as_any() {
        let (values, shape) = ([1.0; 32], [40, 32]);
        let known = of(&values, shape);
        let found = nearest(&matrix(&Device::cpu(), &known, shape), 4).unwrap();
        assert!((known.minus(&found).square().sqrt() / length(&values[4..]) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn nothing_has_no_rank() {
        let device = Device::cpu();
        assert!(nearest(&device.zeros([5, 4]), 2).unwrap().left.is_empty());
        assert!(Factors { left: vec![vec![0.0; 5]], right: vec![vec![1.0; 4]] }.truncated(1).left.is_empty());
    }
}
