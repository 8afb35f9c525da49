//! Optimizers' directions and steps.

use super::{like, tensor, values};
use crate::backend::{AdafactorArgs, AdafactorAverages, AdamWArgs};
use crate::dtype::DType;
use crate::tensor::Tensor;

fn scalar(x: f64) -> Tensor {
    tensor(vec![x], &[], DType::F32)
}

pub(super) fn adamw(args: &AdamWArgs, [m, v]: [&mut Tensor; 2], grad: &mut Tensor) -> Tensor {
    let average = |old: &Tensor, new: Vec<f64>, beta: f64| -> Vec<f64> {
        values(old).into_iter().zip(new).map(|(old, new)| beta * old + (1.0 - beta) * new).collect()
    };
    let g = values(grad);
    *m = like(m, average(m, g.clone(), args.beta1));
    *v = like(v, average(v, g.iter().map(|g| g * g).collect(), args.beta2));
    let bias = |beta: f64| 1.0 - beta.powf(args.step as f64);
    let root = |v: f64| (v / bias(args.beta2)).sqrt() + f64::from(args.eps);
    *grad = like(grad, values(m).into_iter().zip(values(v)).map(|(m, v)| m / root(v)).collect());
    scalar(args.lr / bias(args.beta1))
}

pub(super) fn adafactor(args: &AdafactorArgs, averages: AdafactorAverages, grad: &mut Tensor) -> Tensor {
    let g = values(grad);
    let count = g.len() as f64;
    // The mean of the squares whose index gives `group`, averaged.
    let average = |old: &mut Tensor, group: &dyn Fn(usize) -> usize| -> Vec<f64> {
        let mut sums = vec![0.0; old.numel()];
        g.iter().enumerate().for_each(|(i, g)| sums[group(i)] += g * g);
        let each = count / sums.len() as f64;
        let new = values(old).into_iter().zip(sums);
        let new = new.map(|(old, sum)| args.beta2 * old + (1.0 - args.beta2) * (sum / each + args.eps));
        *old = like(old, new.collect());
        values(old)
    };
    let direction: Vec<f64> = match averages {
        AdafactorAverages::Full(averages) => {
            let averages = average(averages, &|i| i);
            g.iter().zip(averages).map(|(g, average)| g / average.sqrt()).collect()
        }
        AdafactorAverages::Factored { rows, columns } => {
            let &[.., height, width] = grad.shape() else { panic!("a gradient (.., rows, columns)") };
            let column = |i: usize| i / (height * width) * width + i % width;
            let (row, col) = (average(rows, &|i| i / width), average(columns, &column));
            let mean = |i: usize| {
                let matrix = i / (height * width);
                row[matrix * height..(matrix + 1) * height].iter().sum::<f64>() / height as f64
            };
            let root = |i: usize| (row[i / width] / mean(i) * col[column(i)]).sqrt();
            g.iter().enumerate().map(|(i, g)| g / root(i)).collect()
        }
    };
    let rms = (direction.iter().map(|d| d * d).sum::<f64>() / count).sqrt();
    *grad = like(grad, direction);
    scalar(args.lr / (rms / args.clip_threshold).max(1.0))
}

pub(super) fn step(p: &[f64], keep: f32, factor: &Tensor, direction: &Tensor) -> Vec<f64> {
    let factor = values(factor)[0];
    p.iter().zip(values(direction)).map(|(p, d)| p * f64::from(keep) - factor * d).collect()
}
