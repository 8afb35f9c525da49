//! Faces in pictures, and masks of them, with MediaPipe's two networks.
//!
//! ```text
//! detect.rs      where faces are
//! landmarks.rs   the points of one face
//! cut.rs         a turned square of a picture, in the size that a network takes
//! warp.rs        where the pixels of a cut are in the picture, to the last bit
//! outline.rs     the convex hull of points, and the pixels within
//! ```

mod cut;
mod detect;
mod landmarks;
mod outline;
mod warp;

use std::cmp::Reverse;

use calotype_models::faces::{FaceDetector, FaceLandmarks};
use image::{GrayImage, Luma, RgbImage};

pub use self::outline::Outline;

/// What a mask has outside of faces.
const ELSEWHERE: u8 = 50;
/// The least presence of a face.
const LEAST_PRESENCE: f32 = 0.5;

/// A face in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Face {
    /// The convex hull of its landmarks, in pixels of the picture. A part of it may lie outside of the picture.
    pub outline: Outline,
    /// The detector's box: x, y, width and height, in pixels of the picture. It may reach out of the picture.
    pub rectangle: [f32; 4],
    /// How sure the detector is, 0.6 to 1.
    pub score: f32,
    /// How sure the network for landmarks is, 0.5 to 1.
    pub presence: f32,
}

/// The networks that find faces.
pub struct FaceFinder {
    detector: FaceDetector,
    landmarks: FaceLandmarks,
}

impl FaceFinder {
    /// The networks that the binary carries.
    pub fn carried() -> FaceFinder {
        FaceFinder { detector: FaceDetector::carried(), landmarks: FaceLandmarks::carried() }
    }

    /// The faces of a picture, the largest one first: the one with the most pixels in the picture.
    pub fn find(&self, picture: &RgbImage) -> Vec<Face> {
        let size = picture.dimensions();
        let found = detect::detections(&self.detector, picture).into_iter();
        let mut faces: Vec<(u64, Face)> = found
            .filter_map(|detection| {
                let mesh = landmarks::landmarks(&self.landmarks, picture, &detection);
                let outline = Outline::around(&mesh.points);
                let face = Face {
                    outline,
                    rectangle: detection.rectangle,
                    score: detection.score,
                    presence: mesh.presence,
                };
                let pixels = face.outline.rows(size).map(|(_, columns)| columns.len() as u64).sum();
                (face.presence >= LEAST_PRESENCE && pixels > 0).then_some((pixels, face))
            })
            .collect();
        faces.sort_by_key(|(pixels, _)| Reverse(*pixels));
        faces.into_iter().map(|(_, face)| face).collect()
    }
}

/// A mask for a picture of a size (width, height): 255 in its faces, 50 elsewhere. Without faces, 255 everywhere.
pub fn face_mask(size: (u32, u32), faces: &[Face]) -> GrayImage {
    let elsewhere = if faces.is_empty() { u8::MAX } else { ELSEWHERE };
    let mut mask = GrayImage::from_pixel(size.0, size.1, Luma([elsewhere]));
    faces.iter().for_each(|face| face.outline.fill(&mut mask));
    mask
}

#[cfg(test)]
mod tests;
