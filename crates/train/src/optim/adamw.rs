//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), as `torch.optim.AdamW` computes it.

use rayon::prelude::*;

use super::{GRAIN, Optimizer, OptimizerState};

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

    fn averages(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        let count = shape.iter().product();
        vec![("exp_avg", count), ("exp_avg_sq", count)]
    }

    fn step(&self, state: &mut OptimizerState, shape: &[usize], grad: &mut [f32], lr: f64) -> f32 {
        assert_eq!(grad.len(), shape.iter().product::<usize>(), "a gradient for {shape:?}");
        let [(_, exp_avg), (_, exp_avg_sq)] = state.tensors.as_mut_slice() else {
            panic!("a state that is not AdamW's")
        };
        assert_eq!([exp_avg.len(), exp_avg_sq.len()], [grad.len(); 2], "a state for {shape:?}");
        state.step += 1;
        let bias = |beta: f64| 1.0 - beta.powf(state.step as f64);
        let root = bias(BETA2).sqrt() as f32;
        let moments = exp_avg.par_chunks_mut(GRAIN).zip(exp_avg_sq.par_chunks_mut(GRAIN));
        grad.par_chunks_mut(GRAIN).zip(moments).for_each(|(grad, (m, v))| {
            for ((g, m), v) in grad.iter_mut().zip(m).zip(v) {
                *m += (1.0 - BETA1) as f32 * (*g - *m);
                *v = BETA2 as f32 * *v + (1.0 - BETA2) as f32 * *g * *g;
                *g = *m / (v.sqrt() / root + EPS);
            }
        });
        (lr / bias(BETA1)) as f32
    }
}
