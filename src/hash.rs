//! A hash that is equal in every process.

/// FNV-1a of 64 bits (G. Fowler, L. C. Noll, K.-P. Vo), written out so that processes that share
/// resources agree, whatever they were built with.
pub(crate) fn fnv1a<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
