//! Fits a line to points by gradient descent: `cargo run --release --example autograd`.

use calotype_tensor::ops::{self, LinearArgs};
use calotype_tensor::{Tensor, Weight};

/// Points on y = 3x − 1.
const POINTS: usize = 32;
const STEPS: usize = 200;
const RATE: f32 = 0.3;

fn main() {
    let xs: Vec<f32> = (0..POINTS).map(|i| i as f32 / (POINTS / 2) as f32 - 1.0).collect();
    let ys: Vec<f32> = xs.iter().map(|x| 3.0 * x - 1.0).collect();
    let x = Tensor::from_slice(&xs, &[POINTS, 1]);
    let y = Tensor::from_slice(&ys, &[POINTS, 1]);
    let (mut slope, mut offset) = (0.0, 0.0);
    for step in 0..STEPS {
        let (w, b) = (Tensor::from_slice(&[slope], &[1, 1]).var(), Tensor::from_slice(&[offset], &[1]).var());
        let prediction =
            ops::linear(&x, &Weight::from_tensor(&w), LinearArgs { bias: Some(&b), ..LinearArgs::default() });
        let loss = ops::mse(&prediction, &y, None);
        let gradients = loss.backward();
        let gradient = |leaf: &Tensor| gradients.get(leaf).map_or(0.0, |gradient| gradient.to_vec()[0]);
        slope -= RATE * gradient(&w);
        offset -= RATE * gradient(&b);
        if step % 50 == 49 {
            eprintln!("step {:3}: loss {:.6}, y = {slope:.4}x {offset:+.4}", step + 1, loss.to_vec()[0]);
        }
    }
}
