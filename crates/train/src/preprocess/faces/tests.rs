//! Compares with what MediaPipe finds (`tools/reference/golden/faces.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{RgbImage, imageops};
use serde::Deserialize;

use super::*;
use crate::dataset::note::Note;
use crate::preprocess::Network;

/// A picture of the golden file: its parts, and what MediaPipe finds.
#[derive(Deserialize)]
struct Golden {
    size: (u32, u32),
    /// File, quarter turns against the clock, mirrored, x, y.
    parts: Vec<(String, u32, bool, i64, i64)>,
    faces: Vec<GoldenFace>,
}

#[derive(Deserialize)]
struct GoldenFace {
    score: f32,
    /// Left, top, width, height, in widths and heights of the picture.
    #[serde(rename = "box")]
    rectangle: [f32; 4],
    points: [[f32; 2]; 6],
    /// In pixels.
    landmarks: Option<Vec<[f32; 2]>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden/faces")
}

fn goldens() -> BTreeMap<String, Golden> {
    let text = std::fs::read_to_string(folder().join("faces.json")).expect("a golden file");
    serde_json::from_str(&text).expect("pictures")
}

impl Golden {
    fn picture(&self) -> RgbImage {
        let mut canvas = RgbImage::from_pixel(self.size.0, self.size.1, image::Rgb([128; 3]));
        for (file, turns, mirrored, x, y) in &self.parts {
            let mut part = image::open(folder().join(file)).expect("a picture").to_rgb8();
            (0..*turns).for_each(|_| part = imageops::rotate270(&part));
            if *mirrored {
                imageops::flip_horizontal_in_place(&mut part);
            }
            imageops::replace(&mut canvas, &part, *x, *y);
        }
        canvas
    }
}

/// The largest distance between points.
fn apart(found: &[[f32; 2]], expected: &[[f32; 2]]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let distances = found.iter().zip(expected).map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1]));
    distances.fold(0.0, f32::max)
}

/// Protects the whole chain, from a picture to each face's points: pictures with several faces and with none, in profile, on their side, cut by the
/// edge, in tall and in wide pictures, as MediaPipe has them.
#[test]
fn faces_as_mediapipe_finds_them() {
    let finder = FaceFinder::carried();
    for (name, golden) in goldens() {
        let picture = golden.picture();
        let detections = detect::detections(&finder.detector, &picture);
        assert_eq!(detections.len(), golden.faces.len(), "{name}: {detections:?}");
        let size = [golden.size.0, golden.size.1].map(|length| length as f32);
        for (found, expected) in detections.iter().zip(&golden.faces) {
            let score = (found.score - expected.score).abs();
            let parts =
                |v: &[f32]| -> Vec<f32> { v.iter().enumerate().map(|(i, x)| x / size[i % 2]).collect() };
            let boxes = parts(&found.rectangle).into_iter().zip(expected.rectangle);
            let boxes = boxes.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let points = apart(&found.points.map(|p| [p[0] / size[0], p[1] / size[1]]), &expected.points);
            let mesh = landmarks::landmarks(&finder.landmarks, &picture, found);
            let landmarks = expected.landmarks.as_ref().map(|landmarks| apart(&mesh.points, landmarks));
            let all = format!("{name}: {score} {boxes} {points} {landmarks:?} {}", mesh.presence);
            assert!(score < 1e-5 && boxes < 1e-5 && points < 1e-5, "{all}");
            assert_eq!(mesh.presence >= LEAST_PRESENCE, landmarks.is_some(), "{all}");
            assert!(landmarks.is_none_or(|apart| apart < 0.03), "{all}");
        }
        assert_eq!(finder.find(&picture).len(), golden.faces.len(), "{name}");
    }
}

/// Protects masks: the union of all faces, 50 elsewhere; all 255 without a face; the larger face comes first.
#[test]
fn one_mask_for_all_faces() {
    let finder = FaceFinder::carried();
    let goldens = goldens();
    let picture = goldens["several"].picture();
    let faces = finder.find(&picture);
    let pixels = |faces: &[Face]| -> Vec<u32> {
        let mask = face_mask(picture.dimensions(), faces);
        let is_face = |at: &u32| mask.get_pixel(at % mask.width(), at / mask.width()).0 == [255];
        assert!(mask.pixels().all(|pixel| matches!(pixel.0, [50 | 255])));
        (0..mask.width() * mask.height()).filter(is_face).collect()
    };
    let each: Vec<Vec<u32>> = faces.iter().map(|face| pixels(std::slice::from_ref(face))).collect();
    let mut union = each.concat();
    union.sort_unstable();
    assert_eq!(pixels(&faces), union); // they lie apart
    assert!(each.windows(2).all(|two| two[0].len() >= two[1].len()));
    assert!(face_mask((3, 2), &[]).pixels().all(|pixel| pixel.0 == [255]));
}

/// Protects small and long pictures, and those of one colour: no faces, and no panic.
#[test]
fn pictures_without_faces() {
    let finder = FaceFinder::carried();
    for (width, height) in [(1, 1), (1, 4000), (4000, 1), (64, 64)] {
        for value in [0, 255] {
            let picture = RgbImage::from_pixel(width, height, image::Rgb([value; 3]));
            assert_eq!(finder.find(&picture), [], "{width} × {height}");
        }
    }
}

/// Protects what a set's pictures get: the mask of all faces, a crop by the largest one alone, and what the user is told.
#[test]
fn masks_of_a_set() {
    let mut network = Network::faces();
    let mask_of = network.get().expect("opened").expect("a network");
    let goldens = goldens();
    let made = mask_of(&goldens["two"].picture()).expect("a mask");
    let (mask, crop) = (made.mask, made.crop.expect("a crop"));
    let white = |mask: &GrayImage, x: u32| mask.get_pixel(x, 128).0 == [255];
    // The astronaut's face is on the left; the officer's, on the right, is smaller.
    assert_eq!([120, 400].map(|x| white(&mask, x)), [true; 2]);
    assert_eq!([120, 400].map(|x| white(&crop, x)), [true, false]);
    assert_eq!((mask.get_pixel(0, 0).0, crop.get_pixel(0, 0).0), ([50], [0]));
    assert_eq!(made.notes, [Note::Faces(2)]);
    let none = mask_of(&goldens["none"].picture()).expect("a mask");
    assert!(none.mask.pixels().all(|pixel| pixel.0 == [255]) && none.crop.is_none());
    assert_eq!(none.notes, [Note::NoFace]);
}
