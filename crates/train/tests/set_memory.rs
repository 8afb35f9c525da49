//! What a training set may take of memory, whatever its files claim: peaks of this process, which runs nothing else at the time.
#![cfg(target_os = "linux")]

#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;

use std::fs;
use std::io::{Cursor, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use calotype_train::dataset::{Dataset, DatasetError, DatasetOptions, FileType};
use flate2::{Compress, Compression, FlushCompress, Status};
use image::{DynamicImage, ImageFormat, RgbImage};
use temp::Temp;

const SETTINGS: DatasetOptions = DatasetOptions {
    resolution: 16,
    file_type: FileType::Infer,
    token_string: "TOK",
    caption_prefix: "a photo of TOK, ",
    crop_based_on_salience: false,
};
const MB: usize = 1 << 20;
/// Of a picture, in pixels.
const SIDE: u32 = 1536;
/// What an allocator may keep beside what is asked of it.
const SLACK: usize = 2 * MB;

/// A line of the process's status, in bytes.
fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// Opens the set, and gives with it the bytes by which the process grew at most meanwhile.
fn grown(path: &Path) -> (Result<Dataset, DatasetError>, usize) {
    fs::write("/proc/self/clear_refs", "5").expect("the peak begins anew");
    let before = status("VmRSS");
    let set = Dataset::open(path, &SETTINGS, &|caption| caption.len(), &mut |_, _| ControlFlow::Continue(()));
    (set, status("VmHWM").saturating_sub(before))
}

/// The set's error, or what is said of its only picture.
fn said(set: Result<Dataset, DatasetError>) -> String {
    match set {
        Ok(set) => format!("{} read; {}", set.examples.len(), set.warnings.join("; ")),
        Err(error) => error.to_string(),
    }
}

/// `count` MiB of zeros, deflated: as zlib's stream, or without its header and sum.
fn zeros(count: usize, zlib: bool) -> Vec<u8> {
    let (mut packed, mut block) = (Compress::new(Compression::best(), false), Vec::with_capacity(8 << 10));
    let status = packed.compress_vec(&vec![0; MB], &mut block, FlushCompress::Full).expect("deflated");
    assert!(status == Status::Ok && packed.total_in() == MB as u64);
    let end = [1, 0, 0, 0xff, 0xff]; // an empty last block
    let sum = ((count * MB % 65521) as u32) << 16 | 1;
    match zlib {
        true => [&[0x78, 0xda], &block.repeat(count)[..], &end, &sum.to_be_bytes()].concat(),
        false => [&block.repeat(count)[..], &end].concat(),
    }
}

fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).expect("encoded");
    file.into_inner()
}

fn small(format: ImageFormat) -> Vec<u8> {
    encode(&RgbImage::from_pixel(64, 64, [90, 120, 200].into()).into(), format)
}

/// A PNG's chunk. The sum is not looked at where the decoder skips it.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes()[..], kind, data, &crc.sum().to_be_bytes()].concat()
}

/// A PNG with a chunk before its pixels.
fn png_with(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let plain = small(ImageFormat::Png);
    [&plain[..33], &chunk(kind, data), &plain[33..]].concat()
}

/// A JPEG with a profile in as many segments as there may be.
fn jpeg_with_profile() -> Vec<u8> {
    let plain = small(ImageFormat::Jpeg);
    let segment = |number: u8| {
        let head = [&[0xff, 0xe2, 0xff, 0xff][..], b"ICC_PROFILE\0", &[number, 255]].concat();
        [head, vec![7; 0xffff - 16]].concat()
    };
    [&plain[..2], &(1..=255).map(segment).collect::<Vec<_>>().concat(), &plain[2..]].concat()
}

fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let chunks = chunks.iter().map(|(kind, data)| {
        let padding = if data.len() % 2 == 1 { &[0][..] } else { &[] };
        [&kind[..], &(data.len() as u32).to_le_bytes(), data, padding].concat()
    });
    let body = [b"WEBP".to_vec(), chunks.collect::<Vec<_>>().concat()].concat();
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// The pixels of a plain WebP.
fn vp8l(picture: &DynamicImage) -> Vec<u8> {
    encode(picture, ImageFormat::WebP)[20..].to_vec()
}

/// What begins a WebP that has more than pixels.
fn vp8x(flags: u8, width: u32, height: u32) -> Vec<u8> {
    [&[flags, 0, 0, 0], &(width - 1).to_le_bytes()[..3], &(height - 1).to_le_bytes()[..3]].concat()
}

fn webp_with_profile() -> Vec<u8> {
    let pixels = vp8l(&RgbImage::from_pixel(64, 64, [90, 120, 200].into()).into());
    riff(&[(b"VP8X", &vp8x(0x20, 64, 64)), (b"ICCP", &vec![7; 24 * MB]), (b"VP8L", &pixels)])
}

/// A WebP of one frame, as an animation.
fn webp_animated(picture: &DynamicImage) -> Vec<u8> {
    let (width, height) = (picture.width(), picture.height());
    let pixels = vp8l(picture);
    let size = [&(width - 1).to_le_bytes()[..3], &(height - 1).to_le_bytes()[..3]].concat();
    let head = [&[0; 6][..], &size, &[1, 0, 0, 0]].concat();
    let length = (pixels.len() as u32).to_le_bytes();
    let frame = [&head[..], b"VP8L", &length, &pixels].concat();
    riff(&[(b"VP8X", &vp8x(2, width, height)), (b"ANIM", &[0; 6]), (b"ANMF", &frame)])
}

/// Pictures that only other programs write.
fn golden(name: &str) -> Vec<u8> {
    fs::read(temp::golden().join("pictures").join(name)).expect("a golden file")
}

/// A GIF whose canvas is a column wider than its frame.
fn gif_of_a_frame(picture: &DynamicImage) -> Vec<u8> {
    let mut file = encode(picture, ImageFormat::Gif);
    file[6..8].copy_from_slice(&(SIDE as u16 + 1).to_le_bytes());
    file
}

/// A progressive JPEG of so many colours whose scan is nearly empty: what is missing is grey.
fn jpeg_progressive(colours: u8) -> Vec<u8> {
    let length = [0, 8 + 3 * colours];
    let mut file = [&[0xff, 0xd8, 0xff, 0xdb, 0, 67, 0][..], &[1; 64], &[0xff, 0xc2], &length, &[8]].concat();
    file.extend([(SIDE as u16).to_be_bytes(); 2].concat());
    file.push(colours);
    file.extend((1..=colours).flat_map(|colour| [colour, 0x11, 0]));
    for table in [0x00, 0x10] {
        file.extend([&[0xff, 0xc4, 0, 20, table, 1][..], &[0; 16]].concat());
    }
    file.extend([0xff, 0xda, 0, 6 + 2 * colours, colours]);
    file.extend((1..=colours).flat_map(|colour| [colour, 0]));
    file.extend([0; 3]);
    [file, vec![0; 64], vec![0xff, 0xd9]].concat()
}

/// A zip whose `count` entries are all the same piece of it: `size` MiB of zeros, deflated.
fn zip_overlapping(count: usize, size: usize) -> Vec<u8> {
    let data = zeros(size, false);
    let unpacked = vec![0; size * MB];
    let mut crc = flate2::Crc::new();
    crc.update(&unpacked);
    let u16 = |n: usize| (n as u16).to_le_bytes();
    let u32 = |n: usize| (n as u32).to_le_bytes();
    let sizes = [u32(crc.sum() as usize), u32(data.len()), u32(size * MB)].concat();
    let about = [&u16(20)[..], &u16(0), &u16(8), &u16(0), &u16(0x21), &sizes].concat();
    let local = [b"PK\x03\x04", &about[..], &u16(5), &u16(0), b"0.png", &data].concat();
    let entry = |i: usize| {
        let name = format!("{i}.png");
        [b"PK\x01\x02", &u16(20)[..], &about, &u16(name.len()), &[0; 16], name.as_bytes()].concat()
    };
    let central = (0..count).map(entry).collect::<Vec<_>>().concat();
    let end =
        [&u16(0)[..], &u16(0), &u16(count), &u16(count), &u32(central.len()), &u32(local.len()), &u16(0)];
    [&local[..], &central, b"PK\x05\x06", &end.concat()].concat()
}

/// A zip with a picture and one more file, which is `head` and then `line`, repeated up to `size` MiB.
fn zip_with(name: &str, head: &str, line: &str, size: usize) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_level(Some(1));
    for (name, head, block, times) in [
        ("a.png", small(ImageFormat::Png), Vec::new(), 0),
        (name, head.into(), line.repeat(MB / line.len()).into_bytes(), size),
    ] {
        writer.start_file(name, options).expect("an entry");
        writer.write_all(&head).expect("written");
        (0..times).for_each(|_| writer.write_all(&block).expect("written"));
    }
    writer.finish().expect("a zip").into_inner()
}

/// Pictures that are as large as they say, with the bytes that each pixel may take while it is decoded: those that
/// `bytes_per_pixel` has.
fn pictures() -> Vec<(&'static str, Vec<u8>, usize)> {
    let rgb =
        DynamicImage::from(RgbImage::from_fn(SIDE, SIDE, |x, y| [x as u8, y as u8, (x ^ y) as u8].into()));
    let as_tiff = |picture: DynamicImage| encode(&picture, ImageFormat::Tiff);
    vec![
        ("a.png", encode(&rgb, ImageFormat::Png), 6),
        ("16.png", encode(&rgb.to_rgba16().into(), ImageFormat::Png), 12),
        ("a.bmp", encode(&rgb, ImageFormat::Bmp), 6),
        ("a.gif", encode(&rgb, ImageFormat::Gif), 9),
        ("a.jpg", encode(&rgb, ImageFormat::Jpeg), 6),
        ("progressive-grey.jpg", jpeg_progressive(1), 5),
        ("progressive.jpg", jpeg_progressive(3), 9),
        ("progressive-cmyk.jpg", jpeg_progressive(4), 11),
        ("frame.gif", gif_of_a_frame(&rgb), 9),
        ("a.webp", encode(&rgb, ImageFormat::WebP), 8),
        ("alpha.webp", golden("large_alpha.webp"), 11),
        ("frames.webp", golden("large_frames.webp"), 15),
        ("animated.webp", webp_animated(&rgb), 15),
        ("1.tif", as_tiff(rgb.to_luma8().into()), 4),
        ("8.tif", as_tiff(rgb.clone()), 6),
        ("8a.tif", as_tiff(rgb.to_rgba8().into()), 8),
        ("16.tif", as_tiff(rgb.to_rgb16().into()), 12),
        ("16a.tif", as_tiff(rgb.to_rgba16().into()), 16),
        ("32.tif", as_tiff(rgb.to_rgb32f().into()), 24),
    ]
}

/// Protects the machine: a set takes memory as its files are large, not as they claim to be; what cannot be in a set is refused
/// from its header, and what is beside a picture (a profile, a text) is not unpacked. Each format's cost, which the limit of
/// pixels follows from, is what its decoder takes.
#[test]
fn sets_take_no_more_than_they_may() {
    const VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";
    // glibc's allocator keeps what was freed, unless it is told to give large pieces back.
    if std::env::var_os(VARIABLE).is_none() {
        let mut again = Command::new(std::env::current_exe().expect("this program"));
        let ended = again.arg("--nocapture").env(VARIABLE, "131072").status().expect("it runs");
        assert!(ended.success(), "see above");
        return;
    }
    let temp = Temp::new();
    let mut wrong = Vec::new();
    let mut check = |name: &str, file: Vec<u8>, most: usize, says: &str| {
        let length = file.len();
        let path = temp.write(&format!("{name}/{name}"), file);
        let folder = path.parent().expect("a folder");
        let (set, grown) = grown(if name.ends_with(".zip") { &path } else { folder });
        let said = said(set);
        let line = format!("{name}: {length} bytes, grew by {grown}, expected at most {most}: {said}");
        eprintln!("{line}");
        if grown > most + SLACK || !said.contains(says) {
            wrong.push(line);
        }
        fs::remove_dir_all(folder).expect("removed");
        grown
    };
    let profile = |count| [b"x\0\0", &zeros(count, true)[..]].concat();
    check("bomb.png", png_with(b"iCCP", &profile(400)), 40 * MB, "1 read");
    check("text.png", png_with(b"zTXt", &profile(400)), 40 * MB, "1 read");
    check("large.png", png_with(b"iCCP", &profile(20)), 50 * MB, "1 read");
    // The file, and twice its profile.
    check("profile.jpg", jpeg_with_profile(), 3 * 16 * MB, "1 read");
    check("profile.webp", webp_with_profile(), 2 * 24 * MB, "1 read");
    let shared = "two of its entries share the same bytes";
    check("overlapping.zip", zip_overlapping(600, 1), 10 * MB, shared);
    check("overlapping-large.zip", zip_overlapping(3, 64), 10 * MB, shared);
    let (columns, too_long) = ("image_file,caption\n", "expected at most 16 MiB, found more");
    let mut table = |name: &str, (head, line, size): (&str, &str, usize), most: usize, says: &str| {
        let file = if name.starts_with("text") { "a.txt" } else { "captions.csv" };
        let file = if name.starts_with("json") { "captions.jsonl" } else { file };
        check(&format!("{name}.zip"), zip_with(file, head, line, size), most, says);
    };
    table("rows", (columns, "a.png,x\n", 60), 20 * MB, too_long);
    table(
        "same-rows",
        (columns, "a.png,x\n", 15),
        40 * MB,
        "captions.csv: line 3: a.png was given in line 2",
    );
    table("unknown-rows", (columns, "b,x\n", 15), 40 * MB, "captions.csv: no such picture in the set");
    table("empty-rows", (columns, ",\n", 15), 40 * MB, "1 read; captions.csv has no caption for a.png");
    table("field", (&format!("{columns}a.png,TOK "), "a", 15), 100 * MB, "1 read");
    table("name", (columns, "a", 15), 80 * MB, "captions.csv: line 2: expected 2 fields");
    table("columns", ("", "a,", 15), 250 * MB, "captions.csv: expected at most 1000 columns");
    table("jsonl-rows", ("", "{}\n", 15), 40 * MB, "captions.jsonl: line 1: expected a text image_file");
    let values = "{\"image_file\": \"a.png\", \"more\": [";
    table("jsonl-values", (values, "{},", 15), 40 * MB, "captions.jsonl: line 1");
    table("text", ("TOK ", "a ", 15), 100 * MB, "1 read");
    table("text-long", ("TOK ", "a ", 60), 20 * MB, too_long);
    let pixels = SIDE as usize * SIDE as usize;
    for (name, file, most) in pictures() {
        let length = file.len();
        let grown = check(name, file, length + most * pixels, "1 read");
        let taken = grown.saturating_sub(length) as f64 / pixels as f64;
        eprintln!("{name}: {taken:.2} bytes for each pixel, expected at most {most}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
