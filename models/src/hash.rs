//! Hashes that are the same on every machine and in every version: for fingerprints, not for security.

use twox_hash::xxhash3_128;

/// FNV-1a in 64 bits (Fowler, Noll and Vo).
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// XXH3 in 128 bits of all pieces, one after another, as 32 digits.
pub fn xxh3<B: AsRef<[u8]>>(pieces: impl IntoIterator<Item = B>) -> String {
    let mut hash = xxhash3_128::Hasher::new();
    pieces.into_iter().for_each(|piece| hash.write(piece.as_ref()));
    format!("{:032x}", hash.finish_128())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_published_values_come_out() {
        // The test vectors of draft-eastlake-fnv.
        assert_eq!(super::fnv1a([]), 0xCBF2_9CE4_8422_2325);
        assert_eq!(super::fnv1a(*b"foobar"), 0x8594_4171_F739_67E8);
        // XXH3 of nothing, from the test vectors of xxHash 0.8.
        assert_eq!(super::xxh3([""; 0]), "99aa06d3014798d86001c324468d497f");
        assert_eq!(super::xxh3(["ab", "c"]), super::xxh3(["abc"]));
    }
}
