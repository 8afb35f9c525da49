//! Training sets: what is read out of archives and folders, and every wrong set as an error that names the file.

mod temp;

use std::io::{Cursor, Write};
use std::path::Path;

use calotype_sdxl::Error;
use calotype_sdxl::dataset::{Dataset, DatasetError, Settings};
use calotype_sdxl::request::FileType;
use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use temp::Temp;

type Files<'a> = &'a [(&'a str, Vec<u8>)];

const SETTINGS: Settings = Settings {
    resolution: 16,
    file_type: FileType::Infer,
    token_string: "TOK",
    caption_prefix: "a photo of TOK, ",
    crop_based_on_salience: true,
};

fn encode(picture: impl Into<image::DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// A PNG in shades that depend on `seed`.
fn picture(width: u32, height: u32, seed: u8) -> Vec<u8> {
    let shade = |x: u32, y: u32| Rgb([seed, (x * 255 / width) as u8, (y * 255 / height) as u8]);
    encode(RgbImage::from_fn(width, height, shade), ImageFormat::Png)
}

/// A mask that is white in the columns `white`.
fn mask(width: u32, height: u32, white: std::ops::Range<u32>) -> Vec<u8> {
    let value = |x, _| [if white.contains(&x) { 255 } else { 0 }].into();
    encode(GrayImage::from_fn(width, height, value), ImageFormat::Png)
}

fn zip(files: Files) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A tar with names as they are, however bad.
fn tar(files: Files) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As many tokens as words, and those of start and end.
fn words(caption: &str) -> usize {
    caption.split(' ').count() + 2
}

fn open(path: &Path, settings: &Settings) -> Result<Dataset, DatasetError> {
    Dataset::open(path, settings, &words)
}

fn open_bytes(bytes: &[u8], settings: &Settings) -> Result<Dataset, DatasetError> {
    let temp = Temp::new();
    open(&temp.write("set", bytes), settings)
}

fn open_files(files: Files, settings: &Settings) -> Result<Dataset, DatasetError> {
    open_bytes(&zip(files), settings)
}

fn set(files: Files) -> Dataset {
    open_files(files, &SETTINGS).unwrap()
}

/// The error of a set: one line, for exit code 2.
#[track_caller]
fn one_line(result: Result<Dataset, DatasetError>) -> String {
    let error = Error::from(result.map(|set| set.report()).expect_err("an error"));
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(!text.contains(char::is_control) && text.len() < 1000, "one short line: {text:?}");
    text
}

#[track_caller]
fn error(files: Files) -> String {
    one_line(open_files(files, &SETTINGS))
}

fn names(set: &Dataset) -> Vec<&str> {
    set.examples.iter().map(|e| e.name.as_str()).collect()
}

fn captions(set: &Dataset) -> Vec<&str> {
    set.examples.iter().map(|e| e.caption.as_str()).collect()
}

/// Protects: zip, tar, tar.gz and folder give the same examples in the same order, whatever they are called; litter
/// and hidden files are no pictures, and equal base names are kept apart.
#[test]
fn every_container_gives_the_same() {
    let files = [
        ("b/a.PNG", picture(20, 20, 1)),
        ("B.png", picture(20, 20, 2)),
        ("a/deep/er/a.jpeg", encode(RgbImage::from_pixel(20, 20, Rgb([1, 2, 3])), ImageFormat::Jpeg)),
        ("__MACOSX/b/._a.PNG", b"litter".to_vec()),
        ("b/__MACOSX/a.png", b"litter".to_vec()),
        (".hidden/a.png", b"litter".to_vec()),
        ("b/.DS_Store", b"litter".to_vec()),
        ("b/Thumbs.db", b"litter".to_vec()),
        ("desktop.ini", b"litter".to_vec()),
        ("b/a.txt", b"a TOK".to_vec()),
    ];
    let temp = Temp::new();
    for (name, bytes) in &files {
        temp.write(&format!("folder/{name}"), bytes);
    }
    let paths = [
        temp.path().join("folder"),
        temp.write("set.zip", zip(&files)),
        temp.write("set.tar", tar(&files)),
        temp.write("set.tar.gz", gz(&tar(&files))),
        temp.write("wrong.zip", gz(&tar(&files))),
        temp.write("none", zip(&files)),
    ];
    let first = open(&paths[0], &SETTINGS).unwrap();
    assert_eq!(names(&first), ["B.png", "a/deep/er/a.jpeg", "b/a.PNG"]);
    assert_eq!(captions(&first), ["a photo of TOK", "a photo of TOK", "a TOK"]);
    for path in &paths {
        let set = open(path, &SETTINGS).unwrap();
        assert_eq!(
            (set.examples, set.warnings),
            (first.examples.clone(), first.warnings.clone()),
            "{path:?}"
        );
    }
}

/// Protects: a given type is believed only if the content agrees, and what is no archive says what was expected.
#[test]
fn the_type_must_fit_the_content() {
    let files = [("a.png", picture(20, 20, 1))];
    let given = |file_type| Settings { file_type, ..SETTINGS };
    let (zip, tar) = (zip(&files), tar(&files));
    for (bytes, file_type) in
        [(&zip, FileType::Zip), (&tar, FileType::Tar), (&gz(&tar), FileType::Tar), (&tar, FileType::Infer)]
    {
        assert_eq!(open_bytes(bytes, &given(file_type)).unwrap().examples.len(), 1);
    }
    let text = |bytes: &[u8], file_type| one_line(open_bytes(bytes, &given(file_type)));
    assert!(
        text(&tar, FileType::Zip)
            .contains("expected a zip file, as input_images_filetype says, found a tar file")
    );
    assert!(
        text(&zip, FileType::Tar)
            .contains("expected a tar file, as input_images_filetype says, found a zip file")
    );
    assert!(
        text(b"Rar!", FileType::Infer)
            .contains("expected a .zip, .tar, .tar.gz or a folder, found something else")
    );
    assert!(text(b"", FileType::Infer).contains("found an empty file"));
    assert!(text(&gz(&zip), FileType::Infer).starts_with("input_images: "));
    let temp = Temp::new();
    temp.write("a.png", &files[0].1);
    assert!(one_line(open(temp.path(), &given(FileType::Tar))).contains("found a folder"));
    let missing = one_line(open(&temp.path().join("none.zip"), &SETTINGS));
    assert!(missing.starts_with("input_images: ") && missing.contains("none.zip"), "{missing}");
    let named = temp.write("broken.ZIP", b"garbage");
    assert!(one_line(open(&named, &SETTINGS)).contains("not a whole zip file"));
}

/// Protects: an entry that points out of the archive is an error that names it, though nothing is ever unpacked, and
/// though the file would be passed over.
#[test]
fn entries_that_escape_are_refused() {
    for name in [
        "../evil.png",
        "/etc/evil.png",
        "a/../../evil.png",
        "C:/evil.png",
        "..\\evil.png",
        "a\\b.png",
        "../.x",
    ] {
        let files = [("good.png", picture(20, 20, 1)), (name, picture(20, 20, 2))];
        for archive in [zip(&files), tar(&files), gz(&tar(&files))] {
            let text = one_line(open_bytes(&archive, &SETTINGS));
            assert!(
                text.starts_with(name) && text.contains("expected a path inside of the archive"),
                "{text}"
            );
        }
    }
}

/// Protects: links are refused by name; a picture may not come from elsewhere.
#[test]
fn links_are_refused() {
    for (kind, what) in [(tar::EntryType::Symlink, "a symbolic link"), (tar::EntryType::Link, "a hard link")]
    {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, "evil.png", "/etc/passwd").unwrap();
        let text = one_line(open_bytes(&builder.into_inner().unwrap(), &SETTINGS));
        assert_eq!(text, format!("evil.png: expected a file, found {what}"));
    }
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("evil.png", "/etc/passwd", zip::write::SimpleFileOptions::default()).unwrap();
    let text = one_line(open_bytes(&writer.finish().unwrap().into_inner(), &SETTINGS));
    assert_eq!(text, "evil.png: expected a file, found a symbolic link");
}

/// Protects: two entries of one path are an error, not one picture overwritten by the other.
#[test]
fn an_entry_given_twice_is_refused() {
    let files = [("a.png", picture(20, 20, 1)), ("./a.png", picture(20, 20, 2))];
    for archive in [zip(&files), tar(&files)] {
        assert_eq!(one_line(open_bytes(&archive, &SETTINGS)), "a.png: twice in the archive");
    }
}

/// Protects: a set without a picture is an error, and says what kept those that looked like one out.
#[test]
fn a_set_needs_a_picture() {
    assert_eq!(error(&[("notes.txt", b"hello".to_vec())]), "input_images: no picture in the set");
    assert!(
        error(&[("a.png", b"hello".to_vec())])
            .starts_with("input_images: no picture in the set: a.png cannot be read: ")
    );
    assert_eq!(one_line(open_bytes(&zip(&[]), &SETTINGS)), "input_images: no picture in the set");
    assert_eq!(one_line(open(Temp::new().path(), &SETTINGS)), "input_images: no picture in the set");
}

/// Protects: no byte of an archive, wherever it is changed or cut, makes anything but a set or a one-line error.
#[test]
fn mutated_archives_do_not_panic() {
    let files = [
        ("a.png", picture(17, 20, 1)),
        ("b.jpg", encode(RgbImage::from_pixel(16, 16, Rgb([9, 9, 200])), ImageFormat::Jpeg)),
        ("b.mask.png", mask(16, 16, 3..9)),
        ("c.gif", encode(RgbImage::from_pixel(5, 5, Rgb([9, 9, 200])), ImageFormat::Gif)),
        ("captions.csv", b"file_name,text\na.png,TOK\nb.jpg,\"a TOK, here\"\nc.gif,x\n".to_vec()),
    ];
    let temp = Temp::new();
    let settings = Settings { resolution: 4, ..SETTINGS };
    let check = |bytes: &[u8]| {
        let result = open(&temp.write("set", bytes), &settings);
        match result {
            Ok(set) => assert!(!set.report().is_empty() && !set.examples.is_empty()),
            Err(_) => drop(one_line(result)),
        }
    };
    let stored = {
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in &files {
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    };
    for whole in [zip(&files), stored, tar(&files), gz(&tar(&files))] {
        let step = (whole.len() / 150).max(1);
        for at in (0..whole.len()).step_by(step) {
            check(&whole[..at]);
            for change in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= change;
                check(&changed);
            }
        }
    }
}

/// Protects: no change of a picture's bytes makes anything but another picture or a warning.
#[test]
fn mutated_pictures_do_not_panic() {
    let folder = temp::golden().join("pictures");
    let good = picture(16, 16, 1);
    let temp = Temp::new();
    let settings = Settings { resolution: 4, ..SETTINGS };
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

/// Protects: a CSV's captions go by file name, whatever the order of rows and columns, quotes, line ends and marks.
#[test]
fn captions_by_file_name() {
    let csv = "\u{feff}caption,other,Image_File\r\n\"a TOK, \"\"here\"\"\",1, b (2).png \r\n\r\nTOK,2,x\\c.png\r\n,,\r\n\"two\nlines TOK\",3,a.png\r\n";
    let set = set(&[
        ("top/x/c.png", picture(20, 20, 1)),
        ("top/b (2).png", picture(20, 20, 2)),
        ("top/a.png", picture(20, 20, 3)),
        ("top/a.txt", b"not this".to_vec()),
        ("top/My Captions.csv", csv.into()),
    ]);
    assert_eq!(names(&set), ["top/a.png", "top/b (2).png", "top/x/c.png"]);
    assert_eq!(captions(&set), ["two lines TOK", "a TOK, \"here\"", "TOK"]);
    assert_eq!(set.warnings, ["not used, since there is top/My Captions.csv: top/a.txt"]);
}

/// Protects: a path in the CSV comes before a base name, and a base name must be one picture's.
#[test]
fn equal_base_names_need_paths() {
    let files = |csv: &str| {
        [("a.png", picture(20, 20, 1)), ("b/a.png", picture(20, 20, 2)), ("captions.csv", csv.into())]
    };
    let rooted = set(&files("file_name,text\nb/a.png,b TOK\na.png,a TOK\n"));
    assert_eq!(captions(&rooted), ["a TOK", "b TOK"]);
    let mut nested = files("file_name,text\na.png,b TOK\n");
    nested[0].0 = "c/a.png";
    assert_eq!(error(&nested), "captions.csv: line 2: a.png may be b/a.png, c/a.png: give its path");
    let twice = files("file_name,text\na.png,1 TOK\nb/a.png,2 TOK\nb\\a.png,3 TOK\n");
    assert_eq!(error(&twice), "captions.csv: line 4: b\\a.png was given in line 3 already");
}

/// Protects: a CSV in a folder may give paths from the set's beginning, or from beside itself.
#[test]
fn paths_in_a_nested_csv() {
    let files = |csv: &str| {
        [("x/a.png", picture(20, 20, 1)), ("y/a.png", picture(20, 20, 2)), ("x/captions.csv", csv.into())]
    };
    assert_eq!(captions(&set(&files("file_name,text\nx/a.png,x TOK\ny/a.png,y TOK\n"))), ["x TOK", "y TOK"]);
    assert_eq!(captions(&set(&files("file_name,text\na.png,x TOK\n./y/a.png,y TOK\n"))), ["x TOK", "y TOK"]);
}

/// Protects: a CSV that does not fit its pictures is an error that names the file and line.
#[test]
fn a_wrong_csv_is_refused() {
    let with = |csv: &[u8]| error(&[("a.png", picture(20, 20, 1)), ("caption.csv", csv.to_vec())]);
    assert_eq!(
        with(b"file,caption\na.png,TOK\n"),
        "caption.csv: expected a column image_file or file_name, found file, caption"
    );
    assert_eq!(
        with(b"image_file\na.png\n"),
        "caption.csv: expected a column caption or text, found image_file"
    );
    assert_eq!(with(b""), "caption.csv: expected a column image_file or file_name, found ");
    assert_eq!(
        with(b"image_file,caption\na.png,TOK\nb.png,TOK\nc/d.png,TOK\n"),
        "caption.csv: no such picture in the set: b.png (line 3), c/d.png (line 4)"
    );
    assert_eq!(
        with(b"image_file,caption\na.png,TOK, smiling\n"),
        "caption.csv: line 2: expected 2 fields, found 3 (a comma in a caption needs quotes around it)"
    );
    assert_eq!(with(b"image_file,caption\n"), "caption.csv: no caption for a.png");
    assert_eq!(with(b"image_file,caption\na.png, \n"), "caption.csv: no caption for a.png");
    assert_eq!(with(b"caption\xff"), "caption.csv: expected UTF-8, found another encoding at byte 7");
    let two = [("a.png", picture(20, 20, 1)), ("caption.csv", vec![]), ("captions2.csv", vec![])];
    assert_eq!(error(&two), "caption.csv: expected one CSV of captions, found captions2.csv as well");
    let mut many: Vec<(String, Vec<u8>)> = (0..6).map(|i| (format!("{i}.png"), picture(20, 20, i))).collect();
    many.push(("caption.csv".into(), b"image_file,caption\n1.png,TOK\n4.png,\n".to_vec()));
    let many: Vec<(&str, Vec<u8>)> =
        many.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    assert_eq!(error(&many), "caption.csv: no caption for 0.png, 2.png, 3.png, 4.png, 5.png");
}

/// Protects: a text beside a picture is its caption; pictures without one get the prefix, and the user is told.
#[test]
fn sidecars_and_the_prefix() {
    let set = set(&[
        ("a.png", picture(20, 20, 1)),
        ("a.txt", "\u{feff}  a TOK\r\nby the\tsea \n".into()),
        ("b.png", picture(20, 20, 2)),
        ("c.d.png", picture(20, 20, 3)),
        ("c.d.TXT", b"TOK".to_vec()),
        ("readme.txt", b"hello".to_vec()),
        ("clip.mp4", b"x".to_vec()),
    ]);
    assert_eq!(captions(&set), ["a TOK by the sea", "a photo of TOK", "TOK"]);
    assert_eq!(
        set.warnings,
        ["files that are not used: clip.mp4, readme.txt", "no caption for b.png: \"a photo of TOK\" is used"]
    );
    let wrong = [("a.png", picture(20, 20, 1)), ("a.txt", b"caf\xe9".to_vec())];
    assert_eq!(error(&wrong), "a.txt: expected UTF-8, found another encoding at byte 3");
    let quiet = self::set(&[("a.png", picture(20, 20, 1))]);
    assert_eq!(quiet.warnings, [""; 0]);
}

/// Protects: a set that would train no token is refused, and a part that does not is named.
#[test]
fn the_token_must_be_there() {
    let files = |a: &str, b: &str| {
        [
            ("a.png", picture(20, 20, 1)),
            ("b.png", picture(20, 20, 2)),
            ("a.txt", a.as_bytes().to_vec()),
            ("b.txt", b.as_bytes().to_vec()),
        ]
    };
    let none = "input_images: expected a caption with the token_string TOK as a word of its own, found none";
    assert_eq!(error(&files("a photo", "in TOKYO, a token")), none);
    assert_eq!(set(&files("a tok", "in TOKYO")).warnings, ["TOK is not in the caption of b.png"]);
    for prefix in ["", "a photo of TOKYO, ", "a photo, "] {
        let settings = Settings { caption_prefix: prefix, ..SETTINGS };
        let text = one_line(open_files(&files("a tok", "TOK"), &settings));
        assert!(text.starts_with("caption_prefix: expected the token_string TOK in it"), "{text}");
    }
    let settings = Settings { token_string: "", ..SETTINGS };
    assert!(one_line(open_files(&files("a", "b"), &settings)).starts_with("caption_prefix: "));
}

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
    let middle = open_files(&files, &Settings { crop_based_on_salience: false, ..SETTINGS }).unwrap_err();
    assert_eq!(middle.to_string(), "a.mask.png: black all over the crop: nothing to learn from");
    let wider = [("a.png", picture(60, 20, 1)), ("a.mask.png", mask(60, 20, 30..60))];
    let middle = open_files(&wider, &Settings { crop_based_on_salience: false, ..SETTINGS }).unwrap();
    assert_eq!(middle.examples[0].crop_top_left, [0, 16]);
    let mask = middle.examples[0].mask.as_ref().unwrap();
    assert_eq!((mask[0], mask[15]), (0, 255));
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
        let text = one_line(open_files(&files, &Settings { resolution, ..SETTINGS }));
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
