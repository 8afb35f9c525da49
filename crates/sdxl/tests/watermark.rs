//! The watermark against the Python package `invisible-watermark` (see `tools/reference/golden/watermark.py`).

use std::path::Path;

use calotype_sdxl::watermark::{BITS, Verdict, detect, embed};
use image::RgbImage;

fn golden(name: &str) -> RgbImage {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/watermark");
    image::open(folder.join(name)).expect("a picture").into_rgb8()
}

fn bits(picture: &RgbImage) -> usize {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    detect(picture.as_raw(), width, height).expect("large enough")
}

/// Protects the reader: all bits of a picture that the package has marked, and no more than chance in the plain one.
#[test]
fn reads_the_packages_watermark() {
    assert_eq!(bits(&golden("package.png")), BITS);
    assert_eq!(Verdict::of(bits(&golden("plain.png"))), Verdict::None);
}

/// Protects the writer: the bytes are those of the package's method with its inverse transform put right. The package reads
/// all bits from that file.
#[test]
fn writes_what_the_package_reads() {
    let (mut ours, theirs) = (golden("plain.png"), golden("marked.png"));
    let (width, height) = (ours.width() as usize, ours.height() as usize);
    embed(&mut ours, width, height);
    assert_eq!(bits(&ours), BITS);
    let differs = ours.pixels().zip(theirs.pixels()).filter(|(a, b)| a != b).count();
    assert_eq!(differs, 0, "pixels that differ");
}
