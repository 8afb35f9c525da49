//! The steps of a preprocessing and the set that it writes, with functions in the place of networks.

mod by_hand;
mod made_set;
#[path = "../../../sdxl/tests/temp/mod.rs"]
mod temp;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use calotype_tensor::DType;
use calotype_train::dataset::{Dataset, DatasetError, DatasetOptions, Example, FileType, INDEX};
use calotype_train::preprocess::{
    FoundMask, Identity, Masks, Network, Networks, Preprocess, Settings, Stage, Untouched, Used, Writer,
};
use image::imageops::{self, FilterType};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use temp::Temp;

const RESOLUTION: u32 = 32;

/// What the networks were asked, in order.
type Asked = Rc<RefCell<Vec<String>>>;

/// A network's place in `Asked`: noted when it is opened and when it is dropped.
struct Noted(&'static str, Asked);

impl Noted {
    fn open(name: &'static str, asked: &Asked) -> Noted {
        asked.borrow_mut().push(format!("open {name}"));
        Noted(name, asked.clone())
    }

    fn ask(&self, what: String) {
        self.1.borrow_mut().push(format!("{} {what}", self.0));
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.borrow_mut().push(format!("drop {}", self.0));
    }
}

/// Networks that find the right third of a picture, double a square, and name its first red value and the seed.
fn networks(asked: &Asked) -> Networks<'static> {
    let (masks, upscaler, captioner) = (asked.clone(), asked.clone(), asked.clone());
    Networks {
        mask: Some(Network::new(
            "m f32".into(),
            Box::new(move || {
                let noted = Noted::open("mask", &masks);
                Ok(Box::new(move |picture: &RgbImage| {
                    let (width, height) = picture.dimensions();
                    noted.ask(format!("{width}x{height}"));
                    let right = 2 * width / 3;
                    Ok(FoundMask::new(GrayImage::from_fn(width, height, |x, _| {
                        [if x < right { 3 } else { 255 }].into()
                    })))
                }))
            }),
        )),
        upscale: Some(Network::new(
            "u f32".into(),
            Box::new(move || {
                let noted = Noted::open("upscale", &upscaler);
                Ok(Box::new(move |picture: &RgbImage| {
                    let (width, height) = picture.dimensions();
                    noted.ask(format!("{width}x{height}"));
                    Ok(imageops::resize(picture, 2 * width, 2 * height, FilterType::Nearest))
                }))
            }),
        )),
        caption: Some(Network::new(
            "c f32".into(),
            Box::new(move || {
                let noted = Noted::open("caption", &captioner);
                Ok(Box::new(move |picture: &RgbImage, seed: u64| {
                    let (width, height) = picture.dimensions();
                    noted.ask(format!("{width}x{height}"));
                    Ok(format!("a tok, red {} seed {seed}", picture.get_pixel(0, 0).0[0]))
                }))
            }),
        )),
    }
}

fn used() -> Used {
    let known = |name: &str| Identity::Known(format!("{name} f32"));
    Used { mask: known("m"), upscaler: known("u"), captioner: known("c") }
}

fn settings(networks: Used) -> Settings<'static> {
    Settings {
        set: DatasetOptions {
            resolution: RESOLUTION as usize,
            file_type: FileType::Infer,
            token_string: "TOK",
            caption_prefix: "a photo of TOK, ",
            crop_based_on_salience: true,
        },
        masks: Masks::Prompt { text: "a thing".into(), temperature: 1.0 },
        seed: 7,
        caption_decoding: "sample",
        networks,
    }
}

fn words(caption: &str) -> usize {
    caption.split(' ').count() + 2
}

fn on(_: Stage, _: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Prepares `photos` as a training does.
fn prepare(photos: &Path, asked: &Asked) -> Result<Dataset, DatasetError> {
    let listed = Preprocess::open(photos, settings(used()), None, &mut on)?;
    listed.run(networks(asked), None, &words, &mut on)
}

/// Makes the set of `photos` in `set`, as the command does. Returns what the networks were asked, and the files that stay.
fn make(
    photos: &Path,
    set: &Path,
    settings: Settings,
) -> Result<(Dataset, Vec<String>, Untouched), DatasetError> {
    make_while(photos, set, settings, &mut on)
}

/// The same with another progress callback.
fn make_while(
    photos: &Path,
    set: &Path,
    settings: Settings,
    progress: &mut dyn FnMut(Stage, usize, usize) -> ControlFlow<()>,
) -> Result<(Dataset, Vec<String>, Untouched), DatasetError> {
    let asked = Asked::default();
    let mut writer = Writer::open(set, settings.seed)?;
    let listed = Preprocess::open(photos, settings, Some(set), progress)?;
    let needs = listed.needs();
    let mut all = networks(&asked);
    all.mask = all.mask.filter(|_| needs.mask);
    all.upscale = all.upscale.filter(|_| needs.upscaler);
    all.caption = all.caption.filter(|_| needs.captioner);
    let dataset = listed.run(all, Some(&mut writer), &words, progress)?;
    let untouched = writer.finish(&dataset)?;
    let asked = asked.take().into_iter().filter(|line| !line.starts_with("drop")).collect();
    Ok((dataset, asked, untouched))
}

/// A picture whose red grows to the right and whose green grows downwards.
fn picture(width: u32, height: u32, blue: u8) -> Vec<u8> {
    let pixel = |x: u32, y: u32| Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, blue]);
    png(&RgbImage::from_fn(width, height, pixel))
}

fn png(picture: &RgbImage) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// Three pictures: a wide one, a small one, and one that has its mask and its caption.
fn photos() -> Temp {
    let temp = Temp::new();
    temp.write("photos/a.png", picture(96, 40, 1));
    temp.write("photos/b.png", picture(20, 16, 2));
    temp.write("photos/c.png", picture(40, 40, 3));
    let left = GrayImage::from_fn(40, 40, |x, _| [if x < 20 { 255 } else { 0 }].into());
    let mut mask = std::io::Cursor::new(Vec::new());
    left.write_to(&mut mask, ImageFormat::Png).unwrap();
    temp.write("photos/c.mask.png", mask.into_inner());
    temp.write("photos/c.txt", "TOK itself");
    temp
}

/// Everything below `folder`, by path.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    all.sort();
    all
}

/// Protects the order of the steps: the mask is made of the whole picture, the square lies around it, only squares that are clearly
/// too small are upscaled, the caption is the square's, and what the set has is taken. Each network is opened once, for its first
/// picture, and dropped before the next is opened.
#[test]
fn steps_are_taken_in_order() {
    let (temp, asked) = (photos(), Asked::default());
    let set = prepare(&temp.path().join("photos"), &asked).unwrap();
    let expected = [
        "open mask",
        "mask 96x40",
        "mask 20x16",
        "drop mask",
        "open upscale",
        "upscale 16x16",
        "drop upscale",
        "open caption",
        "caption 32x32",
        "caption 32x32",
        "drop caption",
    ];
    assert_eq!(*asked.borrow(), expected);
    let [a, b, c] = set.examples.as_slice() else { panic!("three pictures") };
    // The mask's centre of mass lies right of the middle, which is at 28.
    let left = a.crop_top_left[1] * 40 / RESOLUTION as usize;
    assert!(left > 45 && left <= 56, "{left}");
    assert!(a.mask.as_ref().is_some_and(|mask| mask[31] == 255));
    assert!(a.caption.starts_with("a photo of TOK, a TOK, red "), "{}", a.caption);
    assert_eq!(c.caption, "TOK itself");
    assert!(c.mask.as_ref().is_some_and(|mask| mask[0] == 255 && mask[31] == 0));
    assert_eq!(b.original_size, [16, 20]);
    assert_eq!(set.warnings, ["b.png: 20 × 16 is smaller than 32: upscaled ×2"]);
    assert!(set.report().contains("20 × 16, upscaled ×2"), "{}", set.report());
    assert!(set.used_networks());
}

/// Protects: what is made of a picture does not depend on others, nor on the order. The seed does matter.
#[test]
fn each_picture_by_itself() {
    let (temp, asked) = (photos(), Asked::default());
    let all = prepare(&temp.path().join("photos"), &asked).unwrap().examples;
    temp.write("alone/z.png", picture(96, 40, 1));
    let alone = prepare(&temp.path().join("alone"), &asked).unwrap().examples;
    assert_eq!(Example { name: "a.png".into(), ..alone[0].clone() }, all[0]);
    let other = Settings { seed: 8, ..settings(used()) };
    let other = Preprocess::open(&temp.path().join("alone"), other, None, &mut on).unwrap();
    let other = other.run(networks(&asked), None, &words, &mut on).unwrap().examples;
    assert_ne!(other[0].caption, alone[0].caption);
    assert_eq!(other[0].rgb, alone[0].rgb);
}

/// Protects the second run: nothing is made again where nothing has changed, and what has is made anew.
#[test]
fn a_second_run_makes_what_has_changed() {
    let temp = photos();
    let (source, set) = (temp.path().join("photos"), temp.path().join("set"));
    let (first, asked, _) = make(&source, &set, settings(used())).unwrap();
    assert_eq!(asked.len(), 3 + 2 + 1 + 2, "{asked:?}");
    let before = files(&set);
    let (second, asked, _) = make(&source, &set, settings(used())).unwrap();
    assert_eq!(asked, [""; 0]);
    assert_eq!((second.examples, second.warnings), (first.examples, first.warnings));
    assert_eq!(files(&set), before);

    let caption = std::fs::read(set.join("b.txt")).unwrap();
    std::fs::remove_file(set.join("b.txt")).unwrap();
    let (_, asked, _) = make(&source, &set, settings(used())).unwrap();
    assert_eq!(asked, ["open caption", "caption 32x32"]);
    assert_eq!(std::fs::read(set.join("b.txt")).unwrap(), caption);

    temp.write("photos/b.png", picture(20, 16, 77));
    let (_, asked, _) = make(&source, &set, settings(used())).unwrap();
    let expected =
        ["open mask", "mask 20x16", "open upscale", "upscale 16x16", "open caption", "caption 32x32"];
    assert_eq!(asked, expected);

    let other = Used { captioner: Identity::Known("c bf16".into()), ..used() };
    let (_, asked, _) = make(&source, &set, settings(other)).unwrap();
    assert_eq!(asked, ["open caption", "caption 32x32", "caption 32x32"], "in another number format");
    make(&source, &set, settings(used())).unwrap();
    let unknown = |dtype| settings(Used { captioner: Identity::Unknown(dtype), ..used() });
    let (_, asked, _) = make(&source, &set, unknown(DType::F32)).unwrap();
    assert_eq!(asked, [""; 0], "a network that is not there is taken for the one that was");
    let (_, asked, _) = make(&source, &set, unknown(DType::BF16)).unwrap();
    assert_eq!(asked.len(), 3, "but not in another number format");

    std::fs::remove_file(source.join("a.png")).unwrap();
    make(&source, &set, settings(used())).unwrap();
    let names: Vec<String> = files(&set)
        .iter()
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let expected = [
        "b.mask.png",
        "b.png",
        "b.txt",
        "c.mask.png",
        "c.png",
        "c.txt",
        "contact_sheet.png",
        "dataset.txt",
        INDEX,
    ];
    assert_eq!(names, expected);
}

/// Protects pictures without extent or contrast: they go through all steps.
#[test]
fn the_smallest_pictures() {
    let temp = Temp::new();
    for (i, (width, height)) in [(1, 1), (1, 4000), (4000, 1), (3, 3)].into_iter().enumerate() {
        let grey = RgbImage::from_pixel(width, height, Rgb([40 + i as u8; 3]));
        temp.write(&format!("photos/{i}.png"), png(&grey));
    }
    let set = prepare(&temp.path().join("photos"), &Asked::default()).unwrap();
    assert_eq!(set.examples.len(), 4);
    let one_colour = |e: &Example| e.rgb.iter().all(|value| *value == e.rgb[0]);
    assert!(set.examples.iter().all(one_colour));
}
