//! MediaPipe's two networks for faces: where faces are in a picture (BlazeFace, full range), and the landmarks of one face
//! (Kartynnik et al. 2019, arXiv 1907.06724).
//!
//! The binary carries their weights and lists of ops, which `tools/faces.py` takes from the package `mediapipe`.
//!
//! ```text
//! network.rs   a list of ops, read from the file and executed
//! ops.rs       the ops, as plain loops
//! ```

mod network;
mod ops;

use self::network::Network;

/// Weights and lists of ops of both networks. Apache-2.0: the notice is beside it.
const CARRIED: &[u8] = include_bytes!("faces/mediapipe.safetensors");

/// The width and height of the picture that each network takes, in pixels.
pub const SIDE: usize = 192;
/// The detector's cells in a row, and in a column.
pub const CELLS: usize = 48;
/// The detector's numbers for each cell.
pub const BOX_VALUES: usize = 16;
/// The points of a face.
pub const LANDMARKS: usize = 468;

/// The network that finds faces.
pub struct FaceDetector(Network);

/// What the detector says of each cell, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Detections {
    /// (48 · 48, 16), in pixels: the box's middle, from the cell's middle, and size; then six points, from the cell's middle: right eye,
    /// left eye, nose, mouth, right ear, left ear.
    pub boxes: Vec<f32>,
    /// (48 · 48): the logit of a face.
    pub logits: Vec<f32>,
}

impl FaceDetector {
    /// The network that the binary carries.
    pub fn carried() -> Self {
        Self(Network::carried(CARRIED, "detector"))
    }

    /// picture (192, 192, 3), RGB from −1 to 1 → the faces of each cell.
    ///
    /// # Panics
    /// If the picture has another size.
    pub fn forward(&self, picture: &[f32]) -> Detections {
        let [boxes, logits] = self.0.run(picture, SIDE);
        Detections { boxes, logits }
    }
}

/// The network that finds the landmarks of a face.
pub struct FaceLandmarks(Network);

/// What the network says of a picture of a face.
#[derive(Debug, Clone, PartialEq)]
pub struct Landmarks {
    /// (468, 3): x, y and depth of each point, in pixels.
    pub points: Vec<f32>,
    /// The logit that there is a face.
    pub logit: f32,
}

impl FaceLandmarks {
    /// The network that the binary carries.
    pub fn carried() -> Self {
        Self(Network::carried(CARRIED, "landmarks"))
    }

    /// picture (192, 192, 3), RGB from 0 to 1 → the landmarks of its face.
    ///
    /// # Panics
    /// If the picture has another size.
    pub fn forward(&self, picture: &[f32]) -> Landmarks {
        let [points, logit] = self.0.run(picture, SIDE);
        Landmarks { points, logit: logit[0] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the carried file: both networks are read from it, run, and have outputs of the sizes that are documented.
    #[test]
    fn both_networks_run() {
        let grey = vec![0.0; SIDE * SIDE * 3];
        let found = FaceDetector::carried().forward(&grey);
        assert_eq!((found.boxes.len(), found.logits.len()), (CELLS * CELLS * BOX_VALUES, CELLS * CELLS));
        assert!(found.logits.iter().all(|logit| *logit < 0.0));
        let landmarks = FaceLandmarks::carried().forward(&grey);
        assert_eq!(landmarks.points.len(), LANDMARKS * 3);
        assert!(landmarks.logit < 0.0, "{}", landmarks.logit);
    }
}
