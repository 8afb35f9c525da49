//! Zip, tar and folder: what is read out of them, and what is refused.

use super::*;

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
    let given = |file_type| DatasetOptions { file_type, ..SETTINGS };
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
    for name in ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png", "..\\evil.png", "../.x"] {
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
    let settings = DatasetOptions { resolution: 4, ..SETTINGS };
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

/// Protects: what a tar's header claims (a long name, notes, a file with holes) is refused from the header, before it takes
/// memory, also where the tar is zipped.
#[test]
fn claims_of_a_tar_are_refused() {
    use tar::EntryType::{GNULongName, GNUSparse, XHeader};
    for (kind, says) in [
        (GNULongName, "expected a name of at most 4097 bytes, found 1099511627776"),
        (XHeader, "expected notes of at most 1048576 bytes, found 1099511627776"),
        (GNUSparse, "found one with holes"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_path("a.png").expect("a name");
        header.set_size(1 << 40);
        header.set_entry_type(kind);
        header.set_cksum();
        let bytes = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        for bytes in [&bytes, &gz(&bytes)] {
            let said = one_line(open_bytes(bytes, &SETTINGS));
            assert!(said.contains(says), "{said}");
        }
    }
}

/// Protects: a folder that holds a run is no part of a set, so that a set can be trained on from inside of its folder.
#[test]
fn runs_are_passed_over() {
    let temp = Temp::new();
    temp.write("a.png", picture(20, 20, 1));
    temp.write("runs/a/settings.json", "{}");
    temp.write("runs/a/metrics.jsonl", "");
    temp.write("runs/a/samples/b.png", picture(20, 20, 2));
    let set = open(temp.path(), &SETTINGS).unwrap();
    assert_eq!(names(&set), ["a.png"]);
    assert!(set.warnings.iter().any(|w| w.contains("runs/a")), "{:?}", set.warnings);
}

/// Protects: a link out of a set's folder is not followed: what it names is not the set's to tell.
#[cfg(unix)]
#[test]
fn links_that_lead_out_are_not_followed() {
    let temp = Temp::new();
    let secret = temp.write("secret.txt", "TOK and a password");
    temp.write("set/a.png", picture(20, 20, 1));
    std::os::unix::fs::symlink(secret, temp.path().join("set/a.txt")).expect("a link");
    let set = open(&temp.path().join("set"), &SETTINGS).unwrap();
    assert_eq!(captions(&set), ["a photo of TOK"]);
    assert!(set.warnings.iter().any(|w| w.contains("a.txt")), "{:?}", set.warnings);
}
