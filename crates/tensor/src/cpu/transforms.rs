//! The transforms of Winograd's algorithm for 3 × 3 kernels, [`winograd`](super::winograd): of windows of an image and of
//! kernels to frequencies, and of their products to pixels.

use half::bf16;

use super::math::Element;
use crate::dtype::DType;

/// The most pixels along the side of a window.
pub(super) const WIDEST: usize = 6;

/// F(m × m, 3 × 3): how large a tile is, what its transforms are, and from which sizes on it pays.
pub(super) trait Tile {
    /// What the frequencies of images and kernels are rounded to.
    type E: Element;
    /// Pixels along a side of a tile (m).
    const SIDE: usize;
    /// Pixels along a side of a tile's window, and frequencies along a side.
    const WINDOW: usize = Self::SIDE + 2;
    /// Frequencies of a tile.
    const FREQUENCIES: usize = Self::WINDOW * Self::WINDOW;
    /// The least number of tiles of an image with which the algorithm saves more time than the kernels' transform costs.
    const MIN_TILES: usize;
    /// The least number of channels with which the algorithm saves more time than the images' transforms cost.
    const MIN_CHANNELS: usize;
    /// As many tiles as have so many bytes of frequencies and of their products are treated at once, if that is more than a strip:
    /// more work for many cores at a time.
    const STRIP_BYTES: usize;
    /// The kernels' transform: `WINDOW` rows.
    const G: &'static [[f32; 3]];
    /// Bᵀ d: `WINDOW` values of `WINDOW` values.
    fn frequencies(d: [f32; WIDEST]) -> [f32; WIDEST];
    /// Aᵀ m: `SIDE` values of `WINDOW` values.
    fn pixels(m: [f32; WIDEST]) -> [f32; 4];
}

/// F(4 × 4, 3 × 3), a quarter of the multiplications, in f32. In bf16 its relative error would be 0.024.
pub(super) struct F4;

impl Tile for F4 {
    type E = f32;
    const SIDE: usize = 4;
    const MIN_TILES: usize = 16; // fewer were not timed
    const MIN_CHANNELS: usize = 32;
    const STRIP_BYTES: usize = 0;
    const G: &'static [[f32; 3]] = &[
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];

    #[inline(always)]
    fn frequencies([a, b, c, e, f, g]: [f32; WIDEST]) -> [f32; WIDEST] {
        [
            4.0 * a - 5.0 * c + f,
            (f - 4.0 * c) + (e - 4.0 * b),
            (f - 4.0 * c) - (e - 4.0 * b),
            (f - c) + 2.0 * (e - b),
            (f - c) - 2.0 * (e - b),
            4.0 * b - 5.0 * e + g,
        ]
    }

    #[inline(always)]
    fn pixels(m: [f32; WIDEST]) -> [f32; 4] {
        let (sum, difference) = (m[1] + m[2], m[1] - m[2]);
        let (far_sum, far_difference) = (m[3] + m[4], m[3] - m[4]);
        [
            m[0] + sum + far_sum,
            difference + 2.0 * far_difference,
            sum + 4.0 * far_sum,
            difference + 8.0 * far_difference + m[5],
        ]
    }
}

/// F(2 × 2, 3 × 3), 4/9 of the multiplications, for CPUs that multiply bf16. Its relative error is 0.004, beside 0.002 of rounding a
/// result to bf16.
pub(super) struct F2;

impl Tile for F2 {
    type E = bf16;
    const SIDE: usize = 2;
    // Both are reckoned: the transforms of 16 channels take as long as some 100 instructions that multiply, for each tile and for
    // the kernels of each panel.
    const MIN_TILES: usize = 64;
    const MIN_CHANNELS: usize = 64;
    const STRIP_BYTES: usize = 24 << 20; // a cache that cores share
    const G: &'static [[f32; 3]] = &[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    fn frequencies([a, b, c, e, ..]: [f32; WIDEST]) -> [f32; WIDEST] {
        [a - c, b + c, c - b, b - e, 0.0, 0.0]
    }

    #[inline(always)]
    fn pixels(m: [f32; WIDEST]) -> [f32; 4] {
        [m[0] + m[1] + m[2], m[1] - m[2] - m[3], 0.0, 0.0]
    }
}

/// Three of the 9 kernel positions, each with its factor in a frequency.
pub(super) type Terms = [(usize, f32); 3];

/// A frequency of kernels g: an element of G g Gᵀ.
#[derive(Clone, Copy)]
pub(crate) struct Frequency {
    /// The factors of the kernel's rows, and of its columns.
    rows: [f32; 3],
    columns: [f32; 3],
    /// What the frequency is rounded to.
    pub(super) dtype: DType,
}

impl Frequency {
    /// The frequency at row `index / F::WINDOW`, column `index % F::WINDOW`.
    pub(super) fn of<F: Tile>(index: usize) -> Frequency {
        let (rows, columns) = (F::G[index / F::WINDOW], F::G[index % F::WINDOW]);
        Frequency { rows, columns, dtype: F::E::DTYPE }
    }

    /// The frequency's terms, without triples whose factors are all 0.
    pub(super) fn terms(self) -> impl Iterator<Item = Terms> {
        let Frequency { rows, columns, .. } = self;
        let along_rows = columns.iter().all(|factor| *factor != 0.0);
        let term = move |i: usize, j: usize| {
            let (y, x) = if along_rows { (i, j) } else { (j, i) };
            (y * 3 + x, rows[y] * columns[x])
        };
        let triples = (0..3).map(move |i| std::array::from_fn(|j| term(i, j)));
        triples.filter(|terms: &Terms| terms.iter().any(|(_, factor)| *factor != 0.0))
    }

    /// The terms of kernels that are flipped in both directions.
    pub(super) fn flipped(self) -> impl Iterator<Item = Terms> {
        self.terms().map(|terms| terms.map(|(tap, factor)| (8 - tap, factor)))
    }
}
