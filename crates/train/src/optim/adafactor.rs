//! Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost" (2018), as transformers'
//! `Adafactor` computes it at an absolute learning rate (`scale_parameter=False, relative_step=False`).
//!
//! Only the means over rows and columns of a gradient's squares are kept. The matrices of a tensor are those of its last two
//! axes (a convolution has out · in of kh × kw). A vector is used as it is.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{self, AdafactorArgs, AdafactorAverages};

use super::{Optimizer, OptimizerState};

const DECAY_RATE: f64 = -0.8;
/// Added to the squares.
const EPS: f64 = 1e-30;
/// The largest root mean square of a step, relative to the learning rate.
const CLIP_THRESHOLD: f64 = 1.0;

/// Adafactor without a first moment.
#[derive(Debug, Clone, Copy)]
pub struct Adafactor;

impl Optimizer for Adafactor {
    fn name(&self) -> &'static str {
        "adafactor"
    }

    fn weight_decay(&self) -> f64 {
        0.0
    }

    fn clips(&self) -> bool {
        false
    }

    fn averages(&self, shape: &[usize]) -> Vec<(&'static str, Vec<usize>)> {
        match shape {
            [matrices @ .., rows, columns] => {
                let of = |size: usize| [matrices, &[size]].concat();
                vec![("exp_avg_sq_row", of(*rows)), ("exp_avg_sq_col", of(*columns))]
            }
            vector => vec![("exp_avg_sq", vector.to_vec())],
        }
    }

    fn step(&self, state: &mut OptimizerState, grad: &mut Tensor, lr: f64) -> Tensor {
        state.step += 1;
        let beta2 = 1.0 - (state.step as f64).powf(DECAY_RATE);
        let averages = match state.tensors.as_mut_slice() {
            [(_, rows), (_, columns)] => AdafactorAverages::Factored { rows, columns },
            [(_, averages)] => AdafactorAverages::Full(averages),
            _ => panic!("a state that is not Adafactor's"),
        };
        let args = AdafactorArgs { beta2, eps: EPS, clip_threshold: CLIP_THRESHOLD, lr };
        ops::adafactor(&args, averages, grad)
    }
}
