//! A hash that is the same on every machine and in every version: for fingerprints, not for security.

/// FNV-1a in 64 bits (Fowler, Noll and Vo).
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_published_values_come_out() {
        // The test vectors of draft-eastlake-fnv.
        assert_eq!(super::fnv1a([]), 0xCBF2_9CE4_8422_2325);
        assert_eq!(super::fnv1a(*b"foobar"), 0x8594_4171_F739_67E8);
    }
}
