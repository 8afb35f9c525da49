//! Identifies a set by a number.

use super::Example;

/// A CRC-32 of everything that a training reads: pixels, masks, captions, sizes and crops, in their order.
pub fn fingerprint(examples: &[Example]) -> u32 {
    let mut crc = flate2::Crc::new();
    for e in examples {
        let sizes = [e.original_size, e.crop_top_left].map(|pair| pair.map(|n| n as u64));
        // Pixels and sizes (twice 16 bytes) have known lengths. The caption follows its length.
        crc.update(&e.rgb);
        crc.update(bytemuck::cast_slice(sizes.as_flattened()));
        crc.update(&(e.caption.len() as u64).to_le_bytes());
        crc.update(e.caption.as_bytes());
        crc.update(&[u8::from(e.mask.is_some())]);
        crc.update(e.mask.as_deref().unwrap_or_default());
    }
    crc.sum()
}
