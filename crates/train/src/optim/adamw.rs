//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), as `torch.optim.AdamW` computes it.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{self, AdamWArgs};

use super::{Optimizer, OptimizerState};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f32 = 1e-8;

/// AdamW with the usual betas.
#[derive(Debug, Clone, Copy)]
pub struct AdamW;

impl Optimizer for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn weight_decay(&self) -> f64 {
        1e-4
    }

    fn clips(&self) -> bool {
        true
    }

    fn averages(&self, shape: &[usize]) -> Vec<(&'static str, Vec<usize>)> {
        vec![("exp_avg", shape.to_vec()), ("exp_avg_sq", shape.to_vec())]
    }

    fn step(&self, state: &mut OptimizerState, grad: &mut Tensor, lr: f64) -> Tensor {
        let [(_, exp_avg), (_, exp_avg_sq)] = state.tensors.as_mut_slice() else {
            panic!("a state that is not AdamW's")
        };
        state.step += 1;
        let args = AdamWArgs { beta1: BETA1, beta2: BETA2, eps: EPS, step: state.step, lr };
        ops::adamw(&args, [exp_avg, exp_avg_sq], grad)
    }
}
