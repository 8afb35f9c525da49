//! What the safety checker sees of a picture, against transformers' `CLIPImageProcessor` (see
//! `tools/reference/golden/safety_checker.py`).

use std::path::Path;

use calotype_sdxl::safety::clip_pixels;
use safetensors::SafeTensors;

/// Protects the picture's way into the network: the same pixels for wide, high, small and enlarged pictures, but for one level
/// of rounding.
#[test]
fn pixels_are_those_of_clip() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/safety_checker.safetensors");
    let bytes = std::fs::read(path).expect("a golden file");
    let file = SafeTensors::deserialize(&bytes).expect("a golden file");
    let mut seen = 0;
    for name in file.names() {
        let Some(size) = name.strip_prefix("image.") else { continue };
        let image = file.tensor(name).expect("a picture");
        let &[height, width, 3] = image.shape() else { panic!("{size}: {:?}", image.shape()) };
        let want = file.tensor(&format!("pixels.{size}")).expect("pixels");
        let side = want.shape()[1];
        let found = clip_pixels(image.data(), width, height, side);
        let want = want.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
        let worst = found.iter().zip(want).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        // One of 255 levels, divided by the least standard deviation.
        assert!(worst <= 1.01 / 255.0 / 0.261, "{size}: {worst}");
        seen += 1;
    }
    assert_eq!(seen, 5);
}
