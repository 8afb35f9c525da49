//! Captions from CSV and text files, and the token in them.

use super::*;

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
    assert_eq!(with(b"caption\xff"), "caption.csv: expected UTF-8, found another encoding at byte 7");
    let two = [("a.png", picture(20, 20, 1)), ("caption.csv", vec![]), ("captions2.csv", vec![])];
    assert_eq!(error(&two), "caption.csv: expected one table of captions, found captions2.csv as well");
}

/// Protects a table with gaps: it is named with all pictures that it has no caption for, whose own texts come before the prefix.
#[test]
fn a_csv_with_gaps() {
    let with = |csv: &[u8]| {
        let set = set(&[("a.png", picture(20, 20, 1)), ("caption.csv", csv.to_vec())]);
        assert_eq!(captions(&set), ["a photo of TOK"]);
        assert_eq!(set.warnings, ["caption.csv has no caption for a.png"]);
    };
    with(b"image_file,caption\n");
    with(b"image_file,caption\na.png, \n");
    let mut many: Vec<(String, Vec<u8>)> = (0..6).map(|i| (format!("{i}.png"), picture(20, 20, i))).collect();
    many.push(("caption.csv".into(), b"image_file,caption\n1.png,TOK\n4.png,\n".to_vec()));
    many.push(("3.txt".into(), b"TOK three".to_vec()));
    many.push(("1.txt".into(), b"not this".to_vec()));
    let many: Vec<(&str, Vec<u8>)> =
        many.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let set = set(&many);
    let prefix = "a photo of TOK";
    assert_eq!(captions(&set), [prefix, "TOK", prefix, "TOK three", prefix, prefix]);
    assert_eq!(
        set.warnings,
        [
            "not used, since there is caption.csv: 1.txt",
            "caption.csv has no caption for 0.png, 2.png, 4.png, 5.png",
            "no caption for 0.png, 2.png, 4.png and 1 more: \"a photo of TOK\" is used"
        ]
    );
}

/// Protects an empty text beside a picture: it means the prefix alone, also where a captioner is there, and the user is told.
#[test]
fn an_empty_text() {
    let set = set(&[
        ("a.png", picture(20, 20, 1)),
        ("a.txt", b" \n".to_vec()),
        ("b.png", picture(20, 20, 2)),
        ("b.txt", b"TOK".to_vec()),
    ]);
    assert_eq!(captions(&set), ["a photo of TOK", "TOK"]);
    assert_eq!(set.warnings, ["the caption of a.png is empty: \"a photo of TOK\" is used"]);
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
        let settings = DatasetOptions { caption_prefix: prefix, ..SETTINGS };
        let text = one_line(open_files(&files("a tok", "TOK"), &settings));
        assert!(text.starts_with("caption_prefix: expected the token_string TOK in it"), "{text}");
    }
    let settings = DatasetOptions { token_string: "", ..SETTINGS };
    assert!(one_line(open_files(&files("a", "b"), &settings)).starts_with("caption_prefix: "));
}

/// Protects: captions in the files, the layouts and the encodings of other programs.
#[test]
fn captions_of_other_programs() {
    let utf16 = |text: &str| -> Vec<u8> {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xff, 0xfe].into_iter().chain(units).collect()
    };
    let lines = br#"{"file_name": "a.png", "text": "TOK one"}"#.to_vec();
    for (name, text, caption) in [
        ("a.caption", b"TOK by kohya".to_vec(), "TOK by kohya"),
        ("metadata.jsonl", lines, "TOK one"),
        ("metadata.csv", b"file_name,text\na.png,TOK two\n".to_vec(), "TOK two"),
        ("a.txt", utf16("TOK, caf\u{e9}"), "TOK, caf\u{e9}"),
    ] {
        assert_eq!(captions(&set(&[("a.png", picture(20, 20, 1)), (name, text)])), [caption], "{name}");
    }
    // An accent as macOS writes it in names, and as everybody writes it in texts.
    let accents = set(&[("cafe\u{301}.png", picture(20, 20, 1)), ("caf\u{e9}.txt", b"TOK here".to_vec())]);
    assert_eq!(captions(&accents), ["TOK here"]);
    let latin1 = b"TOK caf\xe9".to_vec();
    let said = error(&[
        ("a.png", picture(20, 20, 1)),
        ("b.png", picture(20, 20, 2)),
        ("a.txt", latin1.clone()),
        ("b.txt", latin1),
    ]);
    assert!(said.contains("a.txt") && said.contains("b.txt"), "{said}");
}
