//! A turned square of a picture, in the size that a network takes.

use image::{Rgb, RgbImage};

use super::warp::Warp;

/// Places between pixels are rounded to this part of a pixel, as in OpenCV, which MediaPipe cuts with.
const PARTS: i64 = 32;

/// A square of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// x and y of its middle.
    pub middle: [f32; 2],
    pub side: f32,
    /// Radians by which the square is turned, from the x axis to the y axis.
    pub angle: f32,
}

/// What lies outside of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    Black,
    /// The nearest pixel of the picture.
    Edge,
}

impl Cut {
    /// The place in the picture of a place in the square, both (x, y); in the square from 0 to 1.
    pub fn place(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let (sin, cos) = self.angle.sin_cos();
        let (x, y) = ((x - 0.5) * self.side, (y - 0.5) * self.side);
        [self.middle[0] + cos * x - sin * y, self.middle[1] + sin * x + cos * y]
    }

    /// Its corners: below on the left, above on the left, above on the right, below on the right.
    fn corners(&self) -> [[f32; 2]; 4] {
        let degrees = self.angle * 180.0 / std::f32::consts::PI;
        let (sin, cos) = (f64::from(degrees) * std::f64::consts::PI / 180.0).sin_cos();
        let (a, b) = (sin as f32 * 0.5 * self.side, cos as f32 * 0.5 * self.side);
        let [x, y] = self.middle;
        let (below, above) = ([x - a - b, y + b - a], [x + a - b, y - b - a]);
        let across = |corner: [f32; 2]| [2.0 * x - corner[0], 2.0 * y - corner[1]];
        [below, above, across(below), across(above)]
    }

    /// The square in `side` × `side` pixels, (side, side, 3), bilinear: pixel (i, j) is at (i, j) / side of the square. A square of no
    /// size is black.
    pub fn cut(&self, picture: &RgbImage, side: usize, outside: Outside) -> Vec<u8> {
        let Some(warp) = Warp::to_corners(self.corners(), side) else { return vec![0; side * side * 3] };
        let mut values = Vec::with_capacity(side * side * 3);
        for i in 0..side * side {
            values.extend(between(picture, warp.place(i % side, i / side, PARTS as f64), outside));
        }
        values
    }
}

/// The colour at a place between pixels, given in parts of a pixel.
fn between(picture: &RgbImage, place: [f64; 2], outside: Outside) -> [u8; 3] {
    let [x, y] = place.map(|at| at as i64);
    let (left, top) = (x.div_euclid(PARTS), y.div_euclid(PARTS));
    let (right, below) = (x.rem_euclid(PARTS), y.rem_euclid(PARTS));
    let corners = [
        (pixel(picture, left, top, outside), (PARTS - right) * (PARTS - below)),
        (pixel(picture, left.saturating_add(1), top, outside), right * (PARTS - below)),
        (pixel(picture, left, top.saturating_add(1), outside), (PARTS - right) * below),
        (pixel(picture, left.saturating_add(1), top.saturating_add(1), outside), right * below),
    ];
    [0, 1, 2].map(|c| {
        let sum: i64 = corners.iter().map(|(colour, weight)| i64::from(colour[c]) * weight).sum();
        ((sum + PARTS * PARTS / 2) / (PARTS * PARTS)) as u8
    })
}

fn pixel(picture: &RgbImage, x: i64, y: i64, outside: Outside) -> [u8; 3] {
    let within = |at: i64, count: u32| at.clamp(0, i64::from(count) - 1) as u32;
    let nearest = (within(x, picture.width()), within(y, picture.height()));
    let is_within = (i64::from(nearest.0), i64::from(nearest.1)) == (x, y);
    let Rgb(colour) = *picture.get_pixel(nearest.0, nearest.1);
    if is_within || outside == Outside::Edge { colour } else { [0; 3] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the way from the square to the picture: upright, between pixels, turned by a quarter, and outside.
    #[test]
    fn squares_of_a_picture() {
        let picture = RgbImage::from_fn(2, 2, |x, y| Rgb([(100 * x + 50 * y) as u8, 10, 20]));
        let red = |square: Cut, side, outside| -> Vec<u8> {
            square.cut(&picture, side, outside).chunks(3).map(|pixel| pixel[0]).collect()
        };
        let whole = Cut { middle: [1.0, 1.0], side: 2.0, angle: 0.0 };
        assert_eq!(red(whole, 2, Outside::Black), [0, 100, 50, 150]);
        assert_eq!(red(whole, 4, Outside::Edge)[..4], [0, 50, 100, 100]);
        assert_eq!(red(whole, 4, Outside::Black)[..4], [0, 50, 100, 50]);
        let quarter = Cut { angle: std::f32::consts::FRAC_PI_2, middle: [0.5, 0.5], ..whole };
        // The square's right is the picture's below.
        assert_eq!(red(quarter, 2, Outside::Edge), [100, 125, 50, 75]);
    }
}
