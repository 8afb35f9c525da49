//! Crops, masks, warnings, and what a user is shown of a set.

use super::*;

/// Protects: the crop follows the mask and is counted in resized pixels; the mask goes through the same crop; the
/// original size is height, width.
#[test]
fn crops_and_masks() {
    let files =
        [("a.png", picture(60, 20, 1)), ("a.mask.png", mask(60, 20, 40..60)), ("b.png", picture(20, 30, 2))];
    let masked = set(&files);
    let [a, b] = masked.examples.as_slice() else { panic!("two pictures") };
    assert_eq!((a.original_size, a.crop_top_left), ([20, 60], [0, 32]));
    assert_eq!((b.original_size, b.crop_top_left), ([30, 20], [4, 0]));
    assert_eq!((a.rgb.len(), b.rgb.len()), (16 * 16 * 3, 16 * 16 * 3));
    assert_eq!(a.mask, Some(vec![255; 16 * 16]));
    assert_eq!(b.mask, None);
    // The columns 40 to 60: their green begins at two thirds.
    assert!(a.rgb[1] >= 165 && a.rgb[1] <= 180, "{}", a.rgb[1]);
    let middle =
        open_files(&files, &DatasetOptions { crop_based_on_salience: false, ..SETTINGS }).unwrap_err();
    assert_eq!(middle.to_string(), "a.mask.png: black all over the crop: nothing to learn from");
    let wider = [("a.png", picture(60, 20, 1)), ("a.mask.png", mask(60, 20, 30..60))];
    let middle = open_files(&wider, &DatasetOptions { crop_based_on_salience: false, ..SETTINGS }).unwrap();
    assert_eq!(middle.examples[0].crop_top_left, [0, 16]);
    let mask = middle.examples[0].mask.as_ref().unwrap();
    assert_eq!((mask[0], mask[15]), (0, 255));
}

/// Protects: squares and their masks are those of Pillow, to the last bit, smaller and larger (`tools/reference/golden/squares.py`).
#[test]
fn squares_as_pillow_resizes_them() {
    let bytes = std::fs::read(temp::golden().join("squares.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| golden.tensor(name).unwrap().data().to_vec();
    let [height, width, _] = golden.tensor("picture").unwrap().shape().try_into().unwrap();
    let (width, height) = (width as u32, height as u32);
    let picture = RgbImage::from_raw(width, height, tensor("picture")).unwrap();
    let mask = GrayImage::from_raw(width, height, tensor("mask")).unwrap();
    let files =
        [("a.png", encode(picture, ImageFormat::Png)), ("a.mask.png", encode(mask, ImageFormat::Png))];
    for resolution in [16, 44, 70] {
        let settings = DatasetOptions { resolution, crop_based_on_salience: false, ..SETTINGS };
        let example = open_files(&files, &settings).unwrap().examples.remove(0);
        assert!(example.rgb == tensor(&format!("picture.{resolution}")), "{resolution}");
        assert!(example.mask == Some(tensor(&format!("mask.{resolution}"))), "{resolution}: mask");
    }
}

/// Protects: a turned picture is cropped, sized and masked as it is seen.
#[test]
fn turned_pictures_are_upright() {
    let turned = std::fs::read(temp::golden().join("pictures/turned_6.jpg")).unwrap();
    let upright = [("a.jpg", turned.clone()), ("a.mask.png", mask(16, 24, 0..16))];
    let set = set(&upright);
    assert_eq!((set.examples[0].original_size, set.examples[0].crop_top_left), ([24, 16], [4, 0]));
    let lying = [("a.jpg", turned), ("a.mask.png", mask(24, 16, 0..16))];
    assert_eq!(error(&lying), "a.mask.png: expected the size of its picture, 16 × 24, found 24 × 16");
}

/// Protects: a mask that cannot be used is an error, and one of no picture a warning.
#[test]
fn wrong_masks() {
    let a = ("a.png", picture(20, 20, 1));
    assert!(error(&[a.clone(), ("a.mask.png", b"x".to_vec())]).starts_with("a.mask.png: cannot be read: "));
    assert!(error(&[a.clone(), ("a.mask.png", mask(20, 20, 0..0))]).starts_with("a.mask.png: black"));
    assert_eq!(set(&[a, ("b.mask.png", vec![])]).warnings, ["masks without a picture: b.mask.png"]);
}

/// Protects: what a user should know before training is said, by name, in one line each.
#[test]
fn warnings_name_what_is_wrong() {
    let long = "TOK ".repeat(80);
    let set = set(&[
        ("a.png", picture(40, 15, 1)),
        ("b.png", picture(20, 20, 2)),
        ("c/b.bmp", encode(image::load_from_memory(&picture(20, 20, 2)).unwrap(), ImageFormat::Bmp)),
        ("d.png", picture(20, 20, 3)),
        ("d.txt", long.into_bytes()),
        ("e\n.jpg", b"no picture".to_vec()),
        ("f.png", picture(20, 20, 4)[..100].to_vec()),
    ]);
    assert_eq!(names(&set), ["a.png", "b.png", "c/b.bmp", "d.png"]);
    let begins = [
        "no caption for a.png, b.png, c/b.bmp and 2 more: ",
        "a.png: 40 × 15 is smaller than 16: enlarged",
        "the same picture twice: b.png, c/b.bmp",
        "e .jpg cannot be read: ",
        "f.png cannot be read: ",
        "d.png: the caption has 82 tokens, of which 77 count",
    ];
    assert_eq!(set.warnings.len(), begins.len(), "{:?}", set.warnings);
    for (warning, begin) in set.warnings.iter().zip(begins) {
        assert!(warning.starts_with(begin) && !warning.contains('\n'), "{warning}");
    }
}

/// Protects: more pictures than fit into memory are refused before any is decoded.
#[test]
fn too_many_for_the_resolution() {
    let files = [("a.png", picture(20, 20, 1))];
    for resolution in [1 << 16, usize::MAX] {
        let text = one_line(open_files(&files, &DatasetOptions { resolution, ..SETTINGS }));
        assert!(text.contains("take more than 8 GiB: use fewer"), "{text}");
    }
}

/// Protects: the report has a line for each picture and each warning.
#[test]
fn the_report_tells_all() {
    let set = set(&[
        ("a.png", picture(60, 20, 1)),
        ("a.mask.png", mask(60, 20, 40..60)),
        ("long name.png", picture(8, 8, 2)),
        ("a.txt", b"TOK by the sea".to_vec()),
    ]);
    let expected = "\
2 pictures, each as 16 × 16, 1 with a mask

picture        size     crop            mask  caption
a.png          60 × 20  top 0, left 32  yes   TOK by the sea
long name.png  8 × 8    top 0, left 0   -     a photo of TOK

2 warnings:
- no caption for long name.png: \"a photo of TOK\" is used
- long name.png: 8 × 8 is smaller than 16: enlarged
";
    assert_eq!(set.report(), expected);
}

/// Protects: the contact sheet is a PNG, the same each time, that grows with the set, and shows what a mask leaves out
/// darker than the rest.
#[test]
fn the_contact_sheet_shows_the_set() {
    let white = encode(RgbImage::from_pixel(20, 20, Rgb([255; 3])), ImageFormat::Png);
    let one = set(&[("a.png", white.clone()), ("a.mask.png", mask(20, 20, 0..10))]);
    let sheet = one.contact_sheet();
    assert_eq!(sheet, one.contact_sheet());
    let shown = image::load_from_memory(&sheet).unwrap().into_rgb8();
    let has = |colour: [u8; 3]| shown.pixels().filter(|p| p.0 == colour).count();
    assert!(has([255; 3]) > 10_000 && has([63; 3]) > 10_000, "half of it bright, half dark");
    let many: Vec<(String, Vec<u8>)> = (0..250).map(|i| (format!("{i}.png"), white.clone())).collect();
    let many: Vec<(&str, Vec<u8>)> =
        many.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let large = image::load_from_memory(&set(&many).contact_sheet()).unwrap();
    assert!(
        large.width() > shown.width() && large.height() < 20_000,
        "{} × {}",
        large.width(),
        large.height()
    );
}

/// Protects: no change of a picture's bytes makes anything but another picture or a warning.
#[test]
fn mutated_pictures_do_not_panic() {
    let folder = temp::golden().join("pictures");
    let good = picture(16, 16, 1);
    let temp = Temp::new();
    let settings = DatasetOptions { resolution: 4, ..SETTINGS };
    temp.write("good.png", good);
    for name in
        ["alpha16.png", "turned_6.jpg", "cmyk.jpg", "alpha.webp", "frames.gif", "palette.bmp", "turned.tif"]
    {
        let whole = std::fs::read(folder.join(name)).unwrap();
        for at in (0..whole.len()).step_by(3) {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            temp.write("x.png", &changed);
            match open(temp.path(), &settings) {
                Ok(set) => assert!(set.examples.len() + set.warnings.len() >= 2),
                Err(error) => assert!(matches!(error, DatasetError::TooManyPixels { .. }), "{error}"),
            }
        }
    }
}

/// Protects: a picture whose header claims more pixels than a picture may have is refused before it is decoded, and so are
/// many that claim too much together.
#[test]
fn canvases_are_limited() {
    let gif = |side: u16| {
        let mut gif = encode(RgbImage::new(1, 1), ImageFormat::Gif);
        gif[6..8].copy_from_slice(&side.to_le_bytes());
        gif[8..10].copy_from_slice(&side.to_le_bytes());
        gif
    };
    let said = error(&[("a.gif", gif(14142))]);
    assert!(said.contains("a.gif: expected at most") && said.contains("14142 × 14142"), "{said}");
    let names: Vec<String> = (0..60).map(|i| format!("{i}.gif")).collect();
    let many: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), gif(8000))).collect();
    let said = error(&many);
    assert!(said.contains("pixels in all pictures together"), "{said}");
}

/// Protects: masks by the names that other programs give them are masks, and no pictures.
#[test]
fn masks_by_other_names() {
    let white_left = mask(20, 20, 0..10);
    let named = |name| set(&[("a.png", picture(20, 20, 1)), (name, white_left.clone())]).examples;
    let ours = named("a.mask.png");
    assert_eq!(ours.len(), 1);
    for other in ["a-masklabel.png", "a_mask.png", "masks/a.png"] {
        assert_eq!(named(other), ours, "{other}");
    }
}

/// Protects: whoever asks to stop waits for one picture, whatever the set is stored in, and gets no part of the set.
#[test]
fn reading_stops_at_a_picture() {
    let names: Vec<String> = (0..9).map(|i| format!("{i}.png")).collect();
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().zip(0..).map(|(name, i)| (name.as_str(), picture(20, 20, i))).collect();
    let temp = Temp::new();
    for (name, set) in [("set.zip", zip(&files)), ("set.tar", tar(&files)), ("set.tgz", gz(&tar(&files)))] {
        let path = temp.write(name, set);
        // How often the caller is asked: for each header, for each picture, and for each piece of what is unpacked.
        let mut all = Vec::new();
        let mut asked = |done, count| {
            all.push((done, count));
            ControlFlow::Continue(())
        };
        Dataset::open(&path, &SETTINGS, &words, &mut asked).expect("read");
        let pictures: Vec<(usize, usize)> = (0..9).map(|done| (done, 9)).collect();
        assert!(all.ends_with(&[&[(0, 9); 9][..], &pictures].concat()), "{name}: {all:?}");
        for stop in 0..all.len() {
            let mut left = stop;
            let mut asked = |_, _| match left.checked_sub(1) {
                Some(less) => {
                    left = less;
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Break(()),
            };
            let stopped = Dataset::open(&path, &SETTINGS, &words, &mut asked);
            assert!(matches!(stopped, Err(DatasetError::Interrupted)), "{name}: {stop}");
        }
    }
}
