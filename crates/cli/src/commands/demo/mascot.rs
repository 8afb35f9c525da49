//! The mascot, a small camera that walks, on plain backgrounds. The demo teaches it to the pocket model, which has never seen
//! it.
//!
//! `mascot.json` has the mascot's shapes. `tools/pocket/mascot.py` draws it from the same file.

use std::collections::HashMap;

use serde::Deserialize;

/// The side of the pictures, in pixels.
pub const SIDE: usize = 128;
/// Each pixel is the mean of this many points across and down.
const POINTS: usize = 4;

type Colour = [f32; 3];

/// The shapes of the mascot, from back to front. The unit is a hundredth of the mascot's size, from its top left corner.
#[derive(Debug, Deserialize)]
struct Mascot {
    colours: HashMap<String, Colour>,
    shapes: Vec<Part>,
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(flatten)]
    shape: Shape,
    colour: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shape {
    /// x, y, radius
    Disc(f32, f32, f32),
    /// left, top, right, bottom, radius of the corners
    Box(f32, f32, f32, f32, f32),
    Polygon(Vec<(f32, f32)>),
}

/// A picture: its background's name, and the mascot's position.
pub struct Scene {
    pub background: &'static str,
    colour: Colour,
    /// The mascot's size and its horizontal centre, relative to the picture's height.
    size: f32,
    middle: f32,
    /// Clockwise, in degrees.
    angle: f32,
    mirrored: bool,
    kind: Kind,
}

/// What preprocessing has to do with a picture.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// It has the size that the model learns from.
    Square,
    /// It is too small.
    Small,
    /// It is wider, with other things beside the mascot.
    Cluttered,
}

/// The balls beside the mascot, in units of a hundredth of the picture's height.
static CLUTTER: [(Shape, Colour); 2] = [
    (Shape::Disc(25.0, 73.5, 14.0), [206.0, 60.0, 60.0]),
    (Shape::Disc(52.5, 79.0, 8.5), [236.0, 208.0, 70.0]),
];

/// The pictures of the set. The pocket model knows their backgrounds by these words.
pub const SCENES: [Scene; 6] = [
    scene("blue", [84.0, 150.0, 226.0], (0.64, 0.50), -3.0, false, Kind::Square),
    scene("green", [104.0, 186.0, 110.0], (0.72, 1.12), 4.0, true, Kind::Cluttered),
    scene("pink", [248.0, 164.0, 194.0], (0.56, 0.55), 2.0, false, Kind::Small),
    scene("grey", [168.0, 172.0, 180.0], (0.68, 0.52), -5.0, true, Kind::Square),
    scene("yellow", [250.0, 218.0, 92.0], (0.60, 0.45), 0.0, false, Kind::Square),
    scene("purple", [150.0, 104.0, 206.0], (0.70, 0.53), 3.0, true, Kind::Square),
];

const fn scene(
    background: &'static str,
    colour: Colour,
    (size, middle): (f32, f32),
    angle: f32,
    mirrored: bool,
    kind: Kind,
) -> Scene {
    Scene { background, colour, size, middle, angle, mirrored, kind }
}

impl Scene {
    /// Width and height, in pixels.
    pub fn dimensions(&self) -> (usize, usize) {
        match self.kind {
            Kind::Square => (SIDE, SIDE),
            Kind::Small => (56, 56),
            Kind::Cluttered => (SIDE * 3 / 2, SIDE),
        }
    }

    /// What preprocessing has to do with the picture, in a few words.
    pub fn what(&self) -> &'static str {
        match self.kind {
            Kind::Square => "",
            Kind::Small => "too small: 56 × 56",
            Kind::Cluttered => "wider, with balls in it",
        }
    }

    /// Draws the picture: rows of RGB pixels.
    pub fn draw(&self) -> Vec<u8> {
        let mascot: Mascot = serde_json::from_str(include_str!("mascot.json")).expect("the shapes are right");
        let (width, height) = self.dimensions();
        let mut rgb = Vec::with_capacity(width * height * 3);
        for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
            let mut sum = [0.0; 3];
            for (i, j) in (0..POINTS).flat_map(|i| (0..POINTS).map(move |j| (i, j))) {
                let at = |pixel: usize, point: usize| {
                    (pixel as f32 + (point as f32 + 0.5) / POINTS as f32) / height as f32
                };
                let colour = self.colour_at(&mascot, at(column, j), at(row, i));
                sum = [0, 1, 2].map(|c| sum[c] + colour[c]);
            }
            rgb.extend(sum.map(|c| (c / (POINTS * POINTS) as f32).round() as u8));
        }
        rgb
    }

    /// The colour at a point, whose coordinates are relative to the picture's height.
    fn colour_at(&self, mascot: &Mascot, x: f32, y: f32) -> Colour {
        let (sin, cos) = self.angle.to_radians().sin_cos();
        // The mascot's feet are at 97 of its units, a little above the picture's lower edge.
        let (right, down) = (x - self.middle, y - (0.88 - 0.47 * self.size));
        let (right, down) = (cos * right + sin * down, cos * down - sin * right);
        let right = if self.mirrored { -right } else { right };
        let (u, v) = (50.0 + 100.0 * right / self.size, 50.0 + 100.0 * down / self.size);
        if let Some(part) = mascot.shapes.iter().rev().find(|part| part.shape.contains(u, v)) {
            return mascot.colours[&part.colour];
        }
        let beside = CLUTTER.iter().filter(|_| self.kind == Kind::Cluttered);
        match beside.rev().find(|(shape, _)| shape.contains(100.0 * x, 100.0 * y)) {
            Some((_, colour)) => *colour,
            None => self.background_at(x, y),
        }
    }

    /// The backdrop: lighter behind the mascot, darker on the floor, with a soft shadow.
    fn background_at(&self, x: f32, y: f32) -> Colour {
        let mix = |a: Colour, b: f32, weight: f32| a.map(|c| c + (b - c) * weight);
        let (width, height) = self.dimensions();
        let centre = 0.5 * width as f32 / height as f32;
        let glow = 0.8 * (1.0 - (x - centre).hypot(y - 0.42) / 0.8).max(0.0).powi(2);
        let floor = ((y - 0.8) * 1.2).clamp(0.0, 1.0);
        let across = (x - self.middle) / (0.46 * self.size);
        let shadow = 0.5 * (1.6 - 1.6 * across.hypot((y - 0.88) / (0.085 * self.size))).clamp(0.0, 1.0);
        let colour = mix(self.colour, 0.0, 0.1 * y);
        let colour = mix(mix(colour, 255.0, 0.45 * glow), 0.0, 0.5 * floor);
        mix(colour, 12.0, shadow)
    }
}

impl Shape {
    fn contains(&self, x: f32, y: f32) -> bool {
        match self {
            &Shape::Disc(cx, cy, radius) => (x - cx).hypot(y - cy) <= radius,
            &Shape::Box(left, top, right, bottom, radius) => {
                // The distance of a coordinate to the box without its rounded rim.
                let beyond = |v: f32, low: f32, high: f32| (low + radius - v).max(v - high + radius).max(0.0);
                beyond(x, left, right).hypot(beyond(y, top, bottom)) <= radius
            }
            Shape::Polygon(points) => {
                let next = points.iter().cycle().skip(1);
                let crossed = |((ax, ay), (bx, by)): &(&(f32, f32), &(f32, f32))| {
                    (*ay > y) != (*by > y) && x < ax + (y - ay) / (by - ay) * (bx - ax)
                };
                points.iter().zip(next).filter(crossed).count() % 2 == 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the pictures: each shows the whole mascot on its own background, with the lens at its place.
    #[test]
    fn the_mascot_stands_in_every_picture() {
        let mut corners = Vec::new();
        for scene in &SCENES {
            let rgb = scene.draw();
            let (width, height) = scene.dimensions();
            assert_eq!(rgb.len(), width * height * 3);
            let pixel = |x: f32, y: f32| {
                let at = ((y * height as f32) as usize * width + (x * height as f32) as usize) * 3;
                [rgb[at], rgb[at + 1], rgb[at + 2]]
            };
            // The centre of the lens: (50, 54) in the mascot's units.
            let lens = pixel(scene.middle, 0.88 - 0.43 * scene.size);
            assert_eq!(lens, [120, 218, 226], "{}", scene.background);
            corners.push(pixel(0.01, 0.01));
            // No part of the mascot is cut off.
            let (half, right) = (0.5 * scene.size, width as f32 / height as f32);
            assert!(scene.middle - half > 0.0 && scene.middle + half < right && 0.88 - scene.size > 0.0);
        }
        corners.sort_unstable();
        corners.dedup();
        assert_eq!(corners.len(), SCENES.len());
    }
}
