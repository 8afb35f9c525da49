//! What is the user's in a made set: files that were changed by hand stay, and are what counts.

use super::*;

/// Sets up a made set of [`photos`] in `set`.
fn made() -> (Temp, PathBuf, PathBuf) {
    let temp = photos();
    let (source, set) = (temp.path().join("photos"), temp.path().join("set"));
    make(&source, &set, settings(used())).unwrap();
    (temp, source, set)
}

fn squares_mask(white: u32) -> Vec<u8> {
    png(&RgbImage::from_fn(32, 32, |x, _| if x < white { Rgb([255; 3]) } else { Rgb([0; 3]) }))
}

fn read(path: PathBuf) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Protects what a user has corrected: files that were changed by hand stay, whatever is made anew, and are what counts.
#[test]
fn corrections_stay() {
    let temp = photos();
    let (source, set) = (temp.path().join("photos"), temp.path().join("set"));
    make(&source, &set, settings(used())).unwrap();
    let red = png(&RgbImage::from_pixel(32, 32, Rgb([200, 0, 0])));
    temp.write("set/a.txt", "TOK on a bench");
    temp.write("set/b.png", &red);
    let black = png(&RgbImage::from_fn(32, 32, |x, _| if x < 9 { Rgb([255; 3]) } else { Rgb([0; 3]) }));
    temp.write("set/b.mask.png", &black);
    let again = |settings| {
        let (dataset, ..) = make(&source, &set, settings).unwrap();
        assert_eq!(std::fs::read(set.join("a.txt")).unwrap(), b"TOK on a bench");
        assert!(std::fs::read(set.join("b.png")).unwrap() == red);
        assert!(std::fs::read(set.join("b.mask.png")).unwrap() == black);
        dataset
    };
    let dataset = again(settings(used()));
    assert_eq!(dataset.examples[0].caption, "TOK on a bench");
    assert_eq!((dataset.examples[1].rgb[0], dataset.examples[1].mask.as_ref().unwrap()[31]), (200, 0));
    let caption = &dataset.examples[1].caption;
    assert!(caption.contains("red 200"), "a square that was changed is described as it is: {caption}");
    again(Settings { seed: 8, ..settings(used()) });
    let unmasked = Used { mask: Identity::None, ..used() };
    let dataset = again(Settings { masks: Masks::Own, ..settings(unmasked) });
    assert_eq!(dataset.examples[0].mask, None);
    assert!(!set.join("a.mask.png").exists() && dataset.examples[1].mask.is_some());
    temp.write("photos/b.png", picture(50, 50, 5));
    again(settings(used()));
    std::fs::remove_file(source.join("a.png")).unwrap();
    let (.., untouched) = make(&source, &set, settings(used())).unwrap();
    assert_eq!(untouched, Untouched { gone: vec!["a.txt".into()], ..Untouched::default() });
}

/// Protects what a user writes while a set is made: a file that is not as the index says stays, new or edited, is named at the end, and
/// counts from the next run on.
#[test]
fn edits_during_a_run_stay() {
    let temp = photos();
    let (source, set) = (temp.path().join("photos"), temp.path().join("set"));
    let edit = |stage: Stage, done: usize, _| {
        if (stage, done) == (Stage::Captions, 1) {
            std::fs::create_dir_all(&set).unwrap();
            std::fs::write(set.join("a.txt"), "TOK, new").unwrap();
            std::fs::write(set.join("b.mask.png"), squares_mask(3)).unwrap();
        }
        ControlFlow::Continue(())
    };
    let meanwhile = |names: &[&str]| Untouched {
        meanwhile: names.iter().map(|name| (*name).into()).collect(),
        ..Untouched::default()
    };
    let (.., untouched) = make_while(&source, &set, settings(used()), &mut { edit }).unwrap();
    assert_eq!(untouched, meanwhile(&["b.mask.png", "a.txt"]));
    let (dataset, asked, untouched) = make(&source, &set, settings(used())).unwrap();
    assert_eq!((asked, untouched), (Vec::new(), Untouched::default()));
    assert_eq!(dataset.examples[0].caption, "TOK, new");
    assert_eq!(dataset.examples[1].mask.as_ref().unwrap()[4], 0);

    // An edit of a file that is there, in a run that makes it anew.
    let edit = |stage: Stage, done: usize, _| {
        if (stage, done) == (Stage::Captions, 1) {
            std::fs::write(set.join("b.txt"), "TOK, edited").unwrap();
        }
        ControlFlow::Continue(())
    };
    std::fs::remove_file(set.join("a.txt")).unwrap();
    let other = Settings { seed: 8, ..settings(used()) };
    let (.., untouched) = make_while(&source, &set, other.clone(), &mut { edit }).unwrap();
    assert_eq!(untouched, meanwhile(&["b.txt"]));
    assert!(
        untouched.lines(Path::new("set"))[0]
            .starts_with("set/b.txt: stays, as it was changed by hand during")
    );
    let (dataset, ..) = make(&source, &set, other).unwrap();
    assert_eq!(dataset.examples[1].caption, "TOK, edited");
}

/// Protects pictures that are replaced by one with another extension: their files keep their names, what was corrected stays with a
/// line, and all else is made anew and stays.
#[test]
fn a_picture_with_another_extension() {
    let (temp, source, set) = made();
    temp.write("set/a.txt", "TOK on a bench");
    std::fs::remove_file(source.join("a.png")).unwrap();
    std::fs::remove_file(source.join("b.png")).unwrap();
    let bmp = |name: &str, width, height, blue| {
        let picture = image::load_from_memory(&picture(width, height, blue)).unwrap();
        picture.save_with_format(source.join(name), ImageFormat::Bmp).unwrap();
    };
    bmp("a.bmp", 96, 40, 9);
    bmp("B.BMP", 40, 48, 9);
    let before: Vec<PathBuf> = files(&set).into_iter().map(|(path, _)| path).collect();
    let (dataset, _, untouched) = make(&source, &set, settings(used())).unwrap();
    assert_eq!(untouched, Untouched::default());
    assert_eq!(files(&set).into_iter().map(|(path, _)| path).collect::<Vec<_>>(), before);
    assert_eq!(dataset.warnings, ["a.txt: by hand, and kept, though the picture has changed"]);
    let captions = |set: &Dataset| set.examples.iter().map(|e| e.caption.clone()).collect::<Vec<_>>();
    assert!(captions(&dataset).contains(&"TOK on a bench".to_owned()));
    let blue = dataset.examples.iter().map(|example| example.rgb[2]).collect::<Vec<_>>();
    assert_eq!(blue, [9, 9, 3], "B.BMP, a.bmp, c.png");
    let (again, asked, _) = make(&source, &set, settings(used())).unwrap();
    assert_eq!((asked, again.warnings.len()), (Vec::new(), 0));
    assert_eq!(captions(&prepare(&set, &Asked::default()).unwrap()), captions(&dataset));
}

/// Protects the pair of square and mask: where one of them was changed by hand, the other is made of the same part of the picture,
/// whatever has changed in the settings.
#[test]
fn square_and_mask_show_the_same_part() {
    let middle = || {
        let set = DatasetOptions { crop_based_on_salience: false, ..settings(used()).set };
        Settings { set, ..settings(used()) }
    };
    let (temp, source, set) = made();
    let square = read(set.join("a.png"));
    temp.write("set/a.mask.png", squares_mask(9));
    let (dataset, asked, _) = make(&source, &set, middle()).unwrap();
    assert!(read(set.join("a.png")) == square && asked.iter().all(|line| line != "mask 96x40"), "{asked:?}");
    let crop = dataset.examples[0].crop_top_left;
    assert!(make(&source, &set, middle()).unwrap().1.is_empty());

    let (temp, source, set) = made();
    let mask = read(set.join("a.mask.png"));
    temp.write("set/a.png", png(&RgbImage::from_pixel(32, 32, Rgb([200, 0, 0]))));
    std::fs::remove_file(set.join("a.mask.png")).unwrap();
    let (dataset, ..) = make(&source, &set, middle()).unwrap();
    assert!(read(set.join("a.mask.png")) == mask);
    assert_eq!(dataset.examples[0].crop_top_left, crop);
}

/// Protects a set from being half rewritten: a square or a mask by hand of another size than the resolution's is refused by name before
/// anything is written, whatever else is to be made.
#[test]
fn files_of_another_size_are_refused_first() {
    let (temp, source, set) = made();
    let larger = || {
        let set = DatasetOptions { resolution: 64, ..settings(used()).set };
        Settings { set, ..settings(used()) }
    };
    for (file, content) in [("c.mask.png", squares_mask(9)), ("b.png", picture(32, 32, 5))] {
        let own = read(set.join(file));
        temp.write(&format!("set/{file}"), content);
        let before = files(&set);
        let refused = make(&source, &set, larger()).map(drop).unwrap_err().to_string();
        let expected =
            format!("{file}: expected 64 × 64, as all squares and masks of the set, found 32 × 32");
        assert!(refused.contains(&expected), "{refused}");
        assert_eq!(files(&set), before);
        make(&source, &set, settings(used())).unwrap();
        temp.write(&format!("set/{file}"), own);
    }
    temp.write("set/a.png", picture(40, 32, 5));
    let refused = make(&source, &set, settings(used())).map(drop).unwrap_err().to_string();
    assert!(refused.contains("a.png: expected 32 × 32"), "{refused}");
    std::fs::remove_file(set.join("a.png")).unwrap();
    make(&source, &set, larger()).unwrap();
}

/// Protects the meaning of an emptied caption: the prefix alone, with a warning, when the set is made again and when it is learnt from.
#[test]
fn an_empty_caption_is_the_prefix() {
    let (temp, source, set) = made();
    temp.write("set/a.txt", "\n");
    let (dataset, asked, _) = make(&source, &set, settings(used())).unwrap();
    assert_eq!((asked, dataset.examples[0].caption.as_str()), (Vec::new(), "a photo of TOK"));
    assert_eq!(dataset.warnings[0], "a.txt is empty: \"a photo of TOK\" is used");
    let asked = Asked::default();
    let read = prepare(&set, &asked).unwrap();
    assert_eq!((asked.take(), read.examples[0].caption.as_str()), (Vec::new(), "a photo of TOK"));
    assert_eq!(read.warnings, ["the caption of a.png is empty: \"a photo of TOK\" is used"]);
}

/// Protects the user's files: a folder with pictures of its own, or with a report, is refused by the name of the file.
#[test]
fn nothing_is_in_the_way() {
    let temp = photos();
    let source = temp.path().join("photos");
    temp.write("own/a.png", picture(8, 8, 1));
    temp.write("report/dataset.txt", "mine");
    temp.write("index/preprocess.json", "{");
    for (folder, file) in [("own", "a.png"), ("report", "dataset.txt"), ("index", INDEX)] {
        let set = temp.path().join(folder);
        let before = files(&set);
        let error = make(&source, &set, settings(used())).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(file) && !error.contains('\n'), "{error}");
        assert_eq!(files(&set), before);
    }
}

/// Protects a set from the user's other pictures: without an index they are refused, whatever their names; with one they are named, as a
/// training learns from them too.
#[test]
fn other_pictures_in_the_folder() {
    let temp = photos();
    let (source, set) = (temp.path().join("photos"), temp.path().join("set"));
    temp.write("set/inner/holiday.jpg", "mine");
    let refused = make(&source, &set, settings(used())).map(drop).unwrap_err().to_string();
    assert!(refused.contains("holiday.jpg: is there already"), "{refused}");
    assert_eq!(files(&set).len(), 1);
    std::fs::remove_dir_all(&set).unwrap();
    make(&source, &set, settings(used())).unwrap();
    temp.write("set/more.png", picture(32, 32, 1));
    temp.write("set/a_mask.png", picture(32, 32, 1));
    let (.., untouched) = make(&source, &set, settings(used())).unwrap();
    assert_eq!(untouched, Untouched { others: vec!["more.png".into()], ..Untouched::default() });
}

/// Protects a set from two runs at once: the second one is refused, and leaves nothing behind.
#[test]
fn one_run_at_a_time() {
    let temp = photos();
    let set = temp.path().join("sets/set");
    let first = Writer::open(&set, 7).unwrap();
    let refused = Writer::open(&set, 7).map(drop).unwrap_err().to_string();
    assert!(refused.ends_with("another process is making a set in this folder"), "{refused}");
    drop(first);
    assert!(!temp.path().join("sets").exists());
    Writer::open(&set, 7).unwrap();
}
