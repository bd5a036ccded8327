use proptest::prelude::*;

use super::*;

/// Tokens count from `first`; labels are ignored in the first half.
fn example(first: u32, length: usize) -> Example {
    let ids: Vec<u32> = (first..first + length as u32).collect();
    let mut labels = ids.clone();
    labels[..length / 2].fill(IGNORE);
    Example { ids, labels }
}

fn options(batch_size: usize) -> Options {
    Options { batch_size, packing: None, shuffle: true, seed: 3, padding: 0 }
}

#[test]
fn rows_are_padded_by_length_and_targets_shifted() {
    let (a, b) = (example(10, 4), example(20, 2));
    let batch = Batch::of_rows(&[vec![&a], vec![&b]], 12);
    assert_eq!((batch.rows, batch.length), (2, 4));
    assert_eq!(batch.ids, [10, 11, 12, 13, 20, 21, 12, 12]);
    let x = IGNORE;
    assert_eq!(batch.targets, [x, 12, 13, x, 21, x, x, x]);
    assert_eq!(batch.positions, [0, 1, 2, 3, 0, 1, 0, 0]);
    assert_eq!(batch.segments, [0, 0, 0, 0, 0, 0, x, x]);
    assert_eq!(batch.lengths, [4, 2]);
    assert_eq!((batch.trained_tokens(), batch.tokens()), (3, 6));
}

#[test]
fn packed_examples_keep_to_themselves() {
    let (a, b) = (example(10, 2), example(20, 3));
    let batch = Batch::of_rows(&[vec![&a, &b]], 0);
    let x = IGNORE;
    assert_eq!(batch.ids, [10, 11, 20, 21, 22]);
    assert_eq!(batch.targets, [11, x, 21, 22, x]);
    assert_eq!(batch.positions, [0, 1, 0, 1, 2]);
    assert_eq!(batch.segments, [0, 0, 1, 1, 1]);
}

#[test]
fn the_fullest_bin_that_fits_is_chosen() {
    // 6 and 5 open bins of 10; 4 fits both and goes to the 6; 3 and 2 fill the 5.
    assert_eq!(pack(&[3, 5, 4, 2, 6], 10), [vec![4, 2], vec![1, 0, 3]]);
}

#[test]
fn every_epoch_shows_every_example_once_in_its_own_order() {
    let examples: Vec<_> = (0..7).map(|i| example(i * 10, 3)).collect();
    let loader = Loader::new(examples.clone(), options(2));
    assert_eq!(loader.batches_per_epoch(), 4);
    let epoch = |number: usize| -> Vec<u32> {
        let batches = (4 * number..4 * number + 4).map(|index| loader.batch(index));
        batches.flat_map(|batch| batch.ids).step_by(3).collect()
    };
    let mut sorted = epoch(0);
    sorted.sort();
    assert_eq!(sorted, [0, 10, 20, 30, 40, 50, 60]);
    assert_ne!(epoch(0), epoch(1));
    assert_eq!(loader.batch(3).rows, 1);
    let in_order = Loader::new(examples, Options { shuffle: false, ..options(2) });
    assert_eq!(in_order.batch(5).ids, in_order.batch(1).ids);
    assert_eq!(in_order.batch(0).ids, [0, 1, 2, 10, 11, 12]);
}

#[test]
#[should_panic(expected = "[pack] expected lengths up to 3, got 4")]
fn an_example_longer_than_a_packed_row_is_a_bug() {
    Loader::new(vec![example(0, 4)], Options { packing: Some(3), ..options(1) });
}

#[test]
fn a_batch_of_a_mixture_is_the_same_however_one_comes_to_it() {
    let examples: Vec<_> = (0..7).map(|i| example(i * 10, 2 + i as usize % 3)).collect();
    let source = |weight, examples| Source { name: String::new(), weight, examples };
    let sources = vec![source(0.7, 2), source(0.3, 5)];
    for unit in [Unit::Rows, Unit::Tokens] {
        let loader = Loader::mixed(examples.clone(), sources.clone(), unit, options(2));
        assert_eq!((loader.batches_per_epoch(), loader.batch(3).rows, loader.batch(4).rows), (4, 1, 2));
        let all: Vec<Batch> = (0..40).map(|index| loader.batch(index)).collect();
        for index in [39, 0, 17, 16, 18] {
            assert_eq!(loader.batch(index), all[index]);
            let resumed = Loader::mixed(examples.clone(), sources.clone(), unit, options(2));
            assert_eq!(resumed.batch(index), all[index]);
        }
        let shares = loader.shares(40);
        assert_eq!(shares.iter().map(|share| share.rows).sum::<usize>(), 70);
        assert_eq!(shares.iter().map(|share| share.tokens).sum::<usize>(), all.iter().map(Batch::tokens).sum::<usize>());
        assert_eq!(unit == Unit::Rows, shares[0].rows == 49);
    }
}

proptest! {
    /// Nothing is lost, nothing is split, and every mask says the same of every token.
    #[test]
    fn packing_keeps_every_example_whole(
        lengths in prop::collection::vec(1usize..=32, 1..40),
        packing in prop::option::of(32usize..80),
        batch_size in 1usize..5,
        seed: u64,
    ) {
        let firsts = (0u32..).step_by(100);
        let examples: Vec<_> =
            lengths.iter().zip(firsts).map(|(&length, first)| example(first, length)).collect();
        let options = Options { packing, seed, padding: 5, ..options(batch_size) };
        let loader = Loader::new(examples.clone(), options);

        let mut seen = Vec::new();
        let mut trained = 0;
        for index in 0..loader.batches_per_epoch() {
            let batch = loader.batch(index);
            trained += batch.trained_tokens();
            prop_assert!(batch.rows <= batch_size && batch.length <= packing.unwrap_or(32));
            prop_assert_eq!(batch.lengths.iter().max().copied(), Some(batch.length as u32));
            for row in 0..batch.rows {
                let at = |column: usize| row * batch.length + column;
                let length = batch.lengths[row] as usize;
                for column in 0..batch.length {
                    prop_assert_eq!(batch.segments[at(column)] == IGNORE, column >= length);
                    let starts = column < length && batch.positions[at(column)] == 0;
                    if starts {
                        seen.push(batch.ids[at(column)]);
                    }
                    let same = column + 1 < length && batch.segments[at(column)] == batch.segments[at(column + 1)];
                    if same {
                        prop_assert_eq!(batch.positions[at(column + 1)], batch.positions[at(column)] + 1);
                        prop_assert_eq!(batch.ids[at(column + 1)], batch.ids[at(column)] + 1);
                    }
                    let target = batch.targets[at(column)];
                    prop_assert!(target == IGNORE || same && target == batch.ids[at(column + 1)]);
                }
            }
        }
        seen.sort();
        prop_assert_eq!(seen, examples.iter().map(|example| example.ids[0]).collect::<Vec<_>>());
        prop_assert_eq!(trained, examples.iter().map(Example::trained_tokens).sum::<usize>());
    }
}
