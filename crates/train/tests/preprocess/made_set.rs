//! The set that a preprocessing writes.

use super::*;

/// Protects the set that is made: a training reads from it what it reads from the pictures themselves, in their order, and no
/// network is asked.
#[test]
fn a_made_set_is_the_set() {
    let (temp, asked) = (photos(), Asked::default());
    let (source, set) = (temp.path().join("photos"), temp.path().join("set"));
    // Sorted by path, a.k.png comes before a.png, but after it where the ending is .jpg.
    temp.write("photos/a.k.png", picture(50, 33, 9));
    std::fs::rename(source.join("a.png"), source.join("a.jpg")).unwrap();
    temp.write("photos/inner/a.png", picture(33, 50, 4));
    make(&source, &set, settings(used())).unwrap();
    let first = prepare(&source, &Asked::default()).unwrap();
    let again = prepare(&set, &asked).unwrap();
    assert_eq!(*asked.borrow(), [""; 0]);
    assert_eq!(again.warnings, [""; 0]);
    let unnamed = |set: &Dataset| -> Vec<Example> {
        set.examples.iter().map(|example| Example { name: String::new(), ..example.clone() }).collect()
    };
    assert_eq!(unnamed(&again), unnamed(&first));
    // The same in another resolution: the crop is counted in its pixels.
    let twice = DatasetOptions { resolution: 2 * RESOLUTION as usize, ..settings(used()).set };
    let twice = Dataset::open(&set, &twice, &words, &mut |_, _| ControlFlow::Continue(())).unwrap();
    for (twice, once) in twice.examples.iter().zip(&again.examples) {
        assert_eq!(twice.original_size, once.original_size);
        assert!(twice.crop_top_left[1].abs_diff(2 * once.crop_top_left[1]) <= 1);
    }
}

/// Protects names: pictures that differ in their ending, or that are called as other files of the set, have files of their own.
#[test]
fn names_are_kept_apart() {
    let temp = Temp::new();
    let source = temp.path().join("photos");
    for (i, name) in ["a.png", "a.bmp", "dataset.png", "A.gif", "x/contact_sheet.jpg"].iter().enumerate() {
        temp.write(&format!("photos/{name}"), picture(40, 40, 50 * i as u8));
    }
    let set = temp.path().join("set");
    let (made, ..) = make(&source, &set, settings(used())).unwrap();
    assert_eq!(made.examples.len(), 5);
    let read = prepare(&set, &Asked::default()).unwrap();
    let blue = |set: &Dataset| set.examples.iter().map(|example| example.rgb[2]).collect::<Vec<_>>();
    assert_eq!(blue(&read), blue(&made));
    // A set among its own pictures is passed over.
    make(&source, &source.join("made"), settings(used())).unwrap();
    let (again, ..) = make(&source, &source.join("made"), settings(used())).unwrap();
    assert_eq!(again.examples.len(), 5, "{:?}", again.warnings);
}

/// Protects an interrupted run: wherever it stops, no file is half written or taken for the user's, and the next run makes what
/// is missing and ends with the same files.
#[test]
fn an_interrupted_run_goes_on() {
    let temp = photos();
    let source = temp.path().join("photos");
    let whole = temp.path().join("whole");
    make(&source, &whole, settings(used())).unwrap();
    let expected = files(&whole);
    let mut asked_before = usize::MAX;
    for stop in 0..20 {
        let set = temp.path().join(format!("set-{stop}"));
        let mut left = stop;
        let mut progress = |_, _, _| match left {
            0 => ControlFlow::Break(()),
            _ => {
                left -= 1;
                ControlFlow::Continue(())
            }
        };
        let mut writer = Writer::open(&set, 7).unwrap();
        let stopped =
            Preprocess::open(&source, settings(used()), Some(&set), &mut progress).and_then(|listed| {
                listed.run(networks(&Asked::default()), Some(&mut writer), &words, &mut progress)
            });
        let ended = match stopped {
            Ok(_) => true,
            Err(DatasetError::Interrupted) => false,
            Err(e) => panic!("{e}"),
        };
        drop(writer);
        let (_, asked, untouched) = make(&source, &set, settings(used())).unwrap();
        assert_eq!(untouched, Untouched::default());
        assert!(asked.len() <= asked_before, "{stop}: {asked:?}");
        asked_before = asked.len();
        let made = files(&set);
        assert_eq!(made.len(), expected.len());
        for ((path, bytes), (other, whole)) in made.iter().zip(&expected) {
            assert!(bytes == whole && path.file_name() == other.file_name(), "{stop}: {}", path.display());
        }
        if ended {
            return;
        }
    }
    panic!("it never ends");
}

/// Protects the warnings about masks: a training on the made set gives them too, until the mask is another one.
#[test]
fn notes_of_masks_are_kept() {
    let temp = photos();
    let (source, set) = (temp.path().join("photos"), temp.path().join("set"));
    let faces = || {
        let used = Used { mask: Identity::Known("faces".into()), ..Used::default() };
        Settings { masks: Masks::Faces, ..settings(used) }
    };
    let networks = || Networks { mask: Some(Network::faces()), ..Networks::default() };
    let mut writer = Writer::open(&set, 7).unwrap();
    let listed = Preprocess::open(&source, faces(), Some(&set), &mut on).unwrap();
    let dataset = listed.run(networks(), Some(&mut writer), &words, &mut on).unwrap();
    writer.finish(&dataset).unwrap();
    let note = |name: &str| format!("{name}: no face found: all of it counts");
    let of_faces = |set: &Dataset| -> Vec<String> {
        set.warnings.iter().filter(|line| line.contains("face")).cloned().collect()
    };
    assert_eq!(of_faces(&dataset), [note("a.png"), note("b.png")]);
    assert_eq!(of_faces(&prepare(&set, &Asked::default()).unwrap()), [note("a.png"), note("b.png")]);
    let mut mask = std::io::Cursor::new(Vec::new());
    GrayImage::from_fn(32, 32, |x, _| [if x < 9 { 255 } else { 0 }].into())
        .write_to(&mut mask, ImageFormat::Png)
        .unwrap();
    temp.write("set/a.mask.png", mask.into_inner());
    assert_eq!(of_faces(&prepare(&set, &Asked::default()).unwrap()), [note("b.png")]);
    let listed = Preprocess::open(&source, faces(), Some(&set), &mut on).unwrap();
    assert_eq!(of_faces(&listed.run(networks(), None, &words, &mut on).unwrap()), [note("b.png")]);
}

/// Protects pictures whose crop leaves out what was found: all of the crop counts, with a warning, where a mask would take the picture out
/// of the training.
#[test]
fn what_was_found_outside_of_the_crop() {
    let temp = Temp::new();
    temp.write("photos/a.png", picture(96, 30, 1));
    let source = temp.path().join("photos");
    let middle = DatasetOptions { crop_based_on_salience: false, ..settings(used()).set };
    let middle = Settings { set: middle, ..settings(used()) };
    let listed = Preprocess::open(&source, middle, None, &mut on).unwrap();
    let set = listed.run(networks(&Asked::default()), None, &words, &mut on).unwrap();
    assert!(set.examples[0].mask.as_ref().unwrap().iter().all(|&value| value == 255));
    assert!(
        set.warnings[0].starts_with("a.png: what was found lies outside of the crop"),
        "{:?}",
        set.warnings
    );
    let around = prepare(&source, &Asked::default()).unwrap();
    assert!(!around.report().contains("outside of the crop"), "{:?}", around.warnings);
}

/// Protects the note about small pictures: a square that was upscaled is not called enlarged where its mask alone is made again.
#[test]
fn upscaled_squares_stay_upscaled() {
    let temp = photos();
    let (source, set) = (temp.path().join("photos"), temp.path().join("set"));
    let (first, ..) = make(&source, &set, settings(used())).unwrap();
    std::fs::remove_file(set.join("b.mask.png")).unwrap();
    let (second, asked, _) = make(&source, &set, settings(used())).unwrap();
    assert_eq!(asked, ["open mask", "mask 20x16"]);
    assert_eq!(second.warnings, first.warnings);
    assert!(first.warnings[0].ends_with("upscaled ×2"), "{:?}", first.warnings);
}

/// Protects tables of captions that lack some: the picture's own text fills the gap, or the captioner, and the table is named.
#[test]
fn gaps_in_a_table_are_filled() {
    let temp = photos();
    let source = temp.path().join("photos");
    temp.write("photos/captions.csv", "image_file,caption\na.png,TOK is wide\nb.png,\n");
    let asked = Asked::default();
    let set = prepare(&source, &asked).unwrap();
    let captions: Vec<&str> = set.examples.iter().map(|example| example.caption.as_str()).collect();
    assert_eq!([captions[0], captions[2]], ["TOK is wide", "TOK itself"]);
    assert!(captions[1].starts_with("a photo of TOK, a TOK, red"), "{captions:?}");
    assert_eq!(asked.take().iter().filter(|line| line.starts_with("caption ")).count(), 1);
    assert_eq!(set.warnings[0], "captions.csv has no caption for b.png");
}

/// Protects a set from being half written: a mask of another size than its picture is found before any square is made.
#[test]
fn masks_of_another_size_are_refused_first() {
    let temp = photos();
    let (source, set) = (temp.path().join("photos"), temp.path().join("set"));
    temp.write("photos/c.mask.png", picture(40, 41, 3));
    let refused = make(&source, &set, settings(used())).map(drop).unwrap_err().to_string();
    assert_eq!(refused, "c.mask.png: expected the size of its picture, 40 × 40, found 40 × 41");
    assert!(!set.exists());
}
