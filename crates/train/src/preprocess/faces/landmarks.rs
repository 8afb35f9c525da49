//! The points of one face.

use calotype_models::faces::{FaceLandmarks, SIDE};
use image::RgbImage;

use super::cut::{Cut, Outside};
use super::detect::Detection;

/// The side of the square that the network sees, in sides of the detector's box.
const ENLARGED: f32 = 1.5;

/// The landmarks of a face.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    /// (x, y) of 468 points, in pixels of the picture.
    pub points: Vec<[f32; 2]>,
    /// The probability that there is a face.
    pub presence: f32,
}

/// The landmarks of a face that was detected.
pub fn landmarks(network: &FaceLandmarks, picture: &RgbImage, detection: &Detection) -> Mesh {
    let square = square_of(detection);
    let pixels = square.cut(picture, SIDE, Outside::Edge);
    let values: Vec<f32> = pixels.iter().map(|value| f32::from(*value) / 255.0).collect();
    let found = network.forward(&values);
    let place = |point: &[f32]| square.place([point[0], point[1]].map(|at| at / SIDE as f32));
    Mesh {
        points: found.points.chunks_exact(3).map(place).collect(),
        presence: 1.0 / (1.0 + (-found.logit).exp()),
    }
}

/// The square around a face, turned so that the eyes are level.
fn square_of(detection: &Detection) -> Cut {
    let [x, y, width, height] = detection.rectangle;
    let [right, left] = [detection.points[0], detection.points[1]];
    Cut {
        middle: [x + width / 2.0, y + height / 2.0],
        side: width.max(height) * ENLARGED,
        angle: (left[1] - right[1]).atan2(left[0] - right[0]),
    }
}
