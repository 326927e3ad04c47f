//! Cuts bytes into pieces, determined by the bytes themselves.

/// `bytes` in up to nine pieces, some of them empty. A hash of the bytes determines the cuts, so
/// that an input is plain text and still always cut in the same way.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut draw = draw(bytes);
    let mut cuts = [0; 8];
    let many = draw as usize % cuts.len();
    for cut in &mut cuts[..many] {
        draw = step(draw);
        // Small distances too, which cut the same few bytes several times.
        let most = if draw & 7 == 0 { 4 } else { bytes.len() + 1 };
        *cut = (draw >> 33) as usize % most.min(bytes.len() + 1);
    }
    cuts.sort_unstable();
    let mut from = 0;
    let ends = cuts.into_iter().chain([bytes.len()]);
    ends.map(move |end| &bytes[std::mem::replace(&mut from, end)..end])
}

/// A number determined by the bytes.
pub fn draw(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for word in bytes.chunks(8) {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(padded)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    }
    step(hash)
}

/// The number after `draw` (Knuth's MMIX constants).
pub fn step(draw: u64) -> u64 {
    draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}
