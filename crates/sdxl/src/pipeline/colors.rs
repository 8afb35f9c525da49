//! The colours of latents, as a linear map shows them.
//!
//! Latents are an image of their own: averaged over the pixels of a latent, colours are nearly a linear function of the latent's channels.
//! The function is another one for each VAE, so it is fitted to the VAE, on a picture of random colours.

use calotype_models::Vae;
use calotype_models::config::VaeConfig;
use calotype_tensor::Tensor;
use calotype_tensor::rng::TorchCpu;

use crate::latents;

/// The side of the picture that is encoded, in latents, and the most pixels of it.
const LATENTS: usize = 32;
const PIXELS: usize = 512;
/// The sides of the patches that the picture consists of, in latents. A picture has details of all sizes.
const PATCHES: [usize; 4] = [1, 2, 4, 8];
/// The standard deviation of the picture's colours, which lie between −1 and 1.
const CONTRAST: f32 = 0.45;
/// More channels than the latents of any model have. Others are ignored.
const MOST_CHANNELS: usize = 64;
/// What is added to the diagonal of the normal equations, relative to its mean, so that channels that never change do no harm.
const RIDGE: f64 = 1e-6;

/// A linear map from latents to colours.
pub(super) struct LatentColors {
    /// For red, green and blue: the factor of each channel, then an offset.
    rows: [Vec<f64>; 3],
}

impl LatentColors {
    /// The map that fits best, by least squares.
    pub fn fit(vae: &Vae, config: &VaeConfig) -> LatentColors {
        let side = (PIXELS / config.scale()).clamp(1, LATENTS);
        let colors = random_colors(side);
        let pixels = enlarged(&colors, side, config.scale());
        let z = latents::scale(config, &vae.encode(&pixels).mean());
        let count = z.last_dim().min(MOST_CHANNELS) + 1;
        let mut normal = vec![vec![0.0; count + 3]; count]; // Aᵀ A, and Aᵀ times the three colours
        for (z, color) in z.to_vec().chunks(z.last_dim()).zip(&colors) {
            let terms = terms(z);
            for (row, factor) in normal.iter_mut().zip(&terms) {
                for (sum, other) in row.iter_mut().zip(terms.iter().copied().chain(color.map(f64::from))) {
                    *sum += factor * other;
                }
            }
        }
        let trace: f64 = (0..count).map(|i| normal[i][i]).sum();
        for (i, row) in normal.iter_mut().enumerate() {
            row[i] += RIDGE * trace / count as f64;
        }
        eliminate(&mut normal);
        LatentColors { rows: [0, 1, 2].map(|c| normal.iter().map(|row| row[count + c]).collect()) }
    }

    /// latents (1, h, w, C) → colours (h · w · 3), about −1 to 1.
    pub fn of(&self, latents: &Tensor) -> Vec<f32> {
        let color = |z: &[f32]| {
            let terms = terms(z);
            [0, 1, 2].map(|c| self.rows[c].iter().zip(&terms).map(|(a, b)| a * b).sum::<f64>() as f32)
        };
        latents.to_vec().chunks(latents.last_dim()).flat_map(color).collect()
    }
}

/// A latent's channels, and 1 for the offset.
fn terms(z: &[f32]) -> Vec<f64> {
    z.iter().take(MOST_CHANNELS).map(|z| f64::from(*z)).chain([1.0]).collect()
}

/// The colours of a picture of `side` × `side` latents: patches of several sizes, added up.
fn random_colors(side: usize) -> Vec<[f32; 3]> {
    let mut rng = TorchCpu::new(0);
    let mut colors = vec![[0.0; 3]; side * side];
    for patch in PATCHES {
        let across = side.div_ceil(patch);
        let random = rng.randn(across * across * 3);
        for (i, color) in colors.iter_mut().enumerate() {
            let at = 3 * (i / side / patch * across + i % side / patch);
            for (color, random) in color.iter_mut().zip(&random[at..]) {
                *color += random * CONTRAST / (PATCHES.len() as f32).sqrt();
            }
        }
    }
    colors.into_iter().map(|color| color.map(|x| x.clamp(-1.0, 1.0))).collect()
}

/// A picture (1, scale · side, scale · side, 3) with a square of scale × scale pixels of each colour.
fn enlarged(colors: &[[f32; 3]], side: usize, scale: usize) -> Tensor {
    let length = side * scale;
    let at = |i: usize| colors[i / length / scale * side + i % length / scale];
    Tensor::from_vec((0..length * length).flat_map(at).collect(), &[1, length, length, 3])
}

/// Solves the equations n × (n + k) by Gauss and Jordan's elimination: the last k columns become the solutions. The matrix is positive
/// definite, so that no pivoting is needed.
fn eliminate(rows: &mut [Vec<f64>]) {
    for i in 0..rows.len() {
        let pivot = rows[i][i];
        rows[i].iter_mut().for_each(|x| *x /= pivot);
        let own = rows[i].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let factor = row[i];
            row.iter_mut().zip(&own).for_each(|(x, own)| *x -= factor * own);
        }
    }
}
