//! Where faces are in a picture.

use calotype_models::faces::{BOX_VALUES, CELLS, Detections, FaceDetector, SIDE};
use image::RgbImage;

use super::cut::{Cut, Outside};

/// The least score of a face.
const LEAST_SCORE: f32 = 0.6;
/// Boxes that overlap by more than this, intersection over union, are of one face.
const MOST_OVERLAP: f32 = 0.3;
/// The points of a detection: right eye, left eye, nose, mouth, right ear, left ear.
const POINTS: usize = 6;
/// The most that a logit is taken for.
const LARGEST_LOGIT: f32 = 100.0;

/// A face that was detected, in pixels of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// x, y, width, height.
    pub rectangle: [f32; 4],
    /// (x, y) of the right eye, the left eye, nose, mouth, right ear, left ear.
    pub points: [[f32; 2]; POINTS],
    pub score: f32,
}

/// The faces of a picture, the most certain one first.
pub fn detections(network: &FaceDetector, picture: &RgbImage) -> Vec<Detection> {
    let size = [picture.width(), picture.height()].map(|length| length as f32);
    let side = size[0].max(size[1]);
    let square = Cut { middle: size.map(|length| length / 2.0), side, angle: 0.0 };
    let pixels = square.cut(picture, SIDE, Outside::Black);
    let values: Vec<f32> = pixels.iter().map(|value| f32::from(*value) / 127.5 - 1.0).collect();
    let mut found = suppressed(candidates(&network.forward(&values)));
    found.iter_mut().for_each(|candidate| candidate.enlarge(square.place([0.0, 0.0]), side));
    found.into_iter().map(Candidate::detection).collect()
}

/// What a cell says of a face; in parts of the square.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    /// Left, top, right, bottom; then x and y of each point.
    values: [f32; 4 + 2 * POINTS],
    score: f32,
}

/// The cells that say that there is a face.
fn candidates(found: &Detections) -> Vec<Candidate> {
    let cells = found.boxes.chunks_exact(BOX_VALUES).zip(&found.logits).enumerate();
    let candidates = cells.filter_map(|(cell, (values, logit))| {
        let score = 1.0 / (1.0 + (-logit.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)).exp());
        let middle = [cell % CELLS, cell / CELLS].map(|at| (at as f32 + 0.5) / CELLS as f32);
        let part = |i: usize| values[i] / SIDE as f32;
        let centre = [0, 1].map(|axis| middle[axis] + part(axis));
        let half = [2, 3].map(|i| part(i) / 2.0);
        let mut all = [0.0; 4 + 2 * POINTS];
        for axis in 0..2 {
            (all[axis], all[2 + axis]) = (centre[axis] - half[axis], centre[axis] + half[axis]);
        }
        for i in 4..BOX_VALUES {
            all[i] = middle[i % 2] + part(i);
        }
        let is_box = half.iter().all(|length| *length >= 0.0);
        (score >= LEAST_SCORE && is_box).then_some(Candidate { values: all, score })
    });
    candidates.collect()
}

/// One candidate for each face: of all that overlap the most certain one, the mean weighted by score.
fn suppressed(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut faces = Vec::new();
    while let Some(best) = candidates.first().cloned() {
        let near = |other: &Candidate| best.overlap(other) > MOST_OVERLAP;
        let (same, others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(near);
        faces.push(if same.is_empty() { best.clone() } else { best.with_mean_of(&same) });
        // A box of no size overlaps nothing, not even itself.
        candidates = others.into_iter().filter(|other| *other != best).collect();
    }
    faces
}

impl Candidate {
    /// Intersection over union of the boxes.
    fn overlap(&self, other: &Candidate) -> f32 {
        let length = |from: f32, to: f32| (to - from).max(0.0);
        let area = |v: &[f32]| length(v[0], v[2]) * length(v[1], v[3]);
        let (a, b) = (&self.values, &other.values);
        let common = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
        let union = area(a) + area(b) - common;
        if union > 0.0 { common / union } else { 0.0 }
    }

    /// The mean of `all` by their scores, with this one's score.
    fn with_mean_of(&self, all: &[Candidate]) -> Candidate {
        let total: f32 = all.iter().map(|one| one.score).sum();
        let mean = |i: usize| all.iter().map(|one| one.values[i] * one.score).sum::<f32>() / total;
        Candidate { values: std::array::from_fn(mean), score: self.score }
    }

    /// From parts of a square to pixels of the picture.
    fn enlarge(&mut self, start: [f32; 2], side: f32) {
        for (i, value) in self.values.iter_mut().enumerate() {
            *value = start[i % 2] + *value * side;
        }
    }

    fn detection(self) -> Detection {
        let v = self.values;
        let points = std::array::from_fn(|i| [v[4 + 2 * i], v[5 + 2 * i]]);
        Detection { rectangle: [v[0], v[1], v[2] - v[0], v[3] - v[1]], points, score: self.score }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(left: f32, width: f32, score: f32) -> Candidate {
        let mut values = [0.0; 16];
        values[..4].copy_from_slice(&[left, 0.0, left + width, 0.5]);
        values[4] = left;
        Candidate { values, score }
    }

    /// Protects the suppression: boxes of one face become their mean by score, with the best score; others stay; a box of no
    /// width ends it too.
    #[test]
    fn boxes_of_one_face_become_one() {
        let all = [(0.0, 0.4, 0.75), (0.5, 0.4, 0.8), (0.1, 0.4, 0.9), (0.8, 0.0, 0.7)];
        let all = all.map(|(left, width, score)| candidate(left, width, score)).to_vec();
        let found = suppressed(all);
        let left = (0.0 * 0.75 + 0.1 * 0.9) / (0.75 + 0.9);
        let expected = [(left, 0.9), (0.5, 0.8), (0.8, 0.7)];
        assert_eq!(found.len(), expected.len());
        for (found, (left, score)) in found.iter().zip(expected) {
            assert!(
                (found.values[0] - left).abs() < 1e-6 && (found.values[4] - left).abs() < 1e-6,
                "{found:?}"
            );
            assert_eq!(found.score, score);
        }
    }
}
