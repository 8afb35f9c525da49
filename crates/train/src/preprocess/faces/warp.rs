//! The perspective map that OpenCV makes of four corners, rounded as OpenCV rounds it: many places lie just between two parts of a pixel,
//! so that the last bits of the map's numbers decide which part is taken.

/// From pixels of the cut to places in the picture, both (x, y): a matrix (3, 3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warp([f64; 9]);

/// OpenCV adds the columns of a block to the block's first column.
const BLOCK: usize = 64;

impl Warp {
    /// The map that takes the corners of a cut of `side` × `side` pixels to these places: below on the left, above on the left,
    /// above on the right, below on the right. `None`: the corners are no square.
    pub fn to_corners(corners: [[f32; 2]; 4], side: usize) -> Option<Warp> {
        let side = side as f64;
        let cut = [[0.0, side], [0.0, 0.0], [side, 0.0], [side, side]];
        let mut equations = [[0.0; 9]; 8];
        for (i, ([x, y], [u, v])) in
            corners.map(|corner| corner.map(f64::from)).into_iter().zip(cut).enumerate()
        {
            equations[i] = [x, y, 1.0, 0.0, 0.0, 0.0, -x * u, -y * u, u];
            equations[i + 4] = [0.0, 0.0, 0.0, x, y, 1.0, -x * v, -y * v, v];
        }
        let [a, b, c, d, e, f, g, h] = solved(equations);
        let map = inverse([a, b, c, d, e, f, g, h, 1.0]);
        map.iter().all(|value| value.is_finite()).then_some(Warp(map))
    }

    /// The place of a pixel, in parts of a pixel.
    pub fn place(&self, x: usize, y: usize, parts: f64) -> [f64; 2] {
        let m = &self.0;
        let (block, within, y) = ((x / BLOCK * BLOCK) as f64, (x % BLOCK) as f64, y as f64);
        let sum = |row: usize| m[row] * block + m[row + 1] * y + m[row + 2] + m[row] * within;
        let scale = parts / sum(6);
        [sum(0) * scale, sum(3) * scale].map(|at| at.round_ties_even())
    }
}

/// The solution of eight linear equations, by Gauss's elimination with the largest pivots; each row ends with its right side.
fn solved(mut rows: [[f64; 9]; 8]) -> [f64; 8] {
    for i in 0..8 {
        let largest =
            |best: usize, row: usize| if rows[row][i].abs() > rows[best][i].abs() { row } else { best };
        let pivot = (i + 1..8).fold(i, largest);
        rows.swap(i, pivot);
        let (row, negative) = (rows[i], -1.0 / rows[i][i]);
        for below in &mut rows[i + 1..] {
            let factor = below[i] * negative;
            below.iter_mut().zip(row).skip(i + 1).for_each(|(value, above)| *value += factor * above);
        }
    }
    let mut solution = [0.0; 8];
    for i in (0..8).rev() {
        let known = (i + 1..8).fold(rows[i][8], |rest, k| rest - rows[i][k] * solution[k]);
        solution[i] = known / rows[i][i];
    }
    solution
}

/// The inverse of a matrix (3, 3), by its minors.
fn inverse(m: [f64; 9]) -> [f64; 9] {
    let minor = |a: usize, b: usize, c: usize, d: usize| m[a] * m[b] - m[c] * m[d];
    let det = m[0] * minor(4, 8, 5, 7) - m[1] * minor(3, 8, 5, 6) + m[2] * minor(3, 7, 4, 6);
    let minors = [
        minor(4, 8, 5, 7),
        minor(2, 7, 1, 8),
        minor(1, 5, 2, 4),
        minor(5, 6, 3, 8),
        minor(0, 8, 2, 6),
        minor(2, 3, 0, 5),
        minor(3, 7, 4, 6),
        minor(1, 6, 0, 7),
        minor(0, 4, 1, 3),
    ];
    minors.map(|minor| minor * (1.0 / det))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the map: corners come to corners, the middle to the middle; corners in one point give none.
    #[test]
    fn corners_come_to_corners() {
        let warp = Warp::to_corners([[10., 30.], [10., 10.], [30., 10.], [30., 30.]], 192).expect("a map");
        for (pixel, place) in [((0, 0), [10., 10.]), ((192, 0), [30., 10.]), ((96, 96), [20., 20.])] {
            assert_eq!(warp.place(pixel.0, pixel.1, 32.0), place.map(|at| at * 32.0));
        }
        assert_eq!(Warp::to_corners([[1., 1.]; 4], 192), None);
    }
}
