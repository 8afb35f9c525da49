//! Training beside the reference: optimizers, and a small network through some steps.

use std::collections::{BTreeMap, HashMap};

use crate::common::{close, noise};
use crate::dtype::DType;
use crate::memory::Device;
use crate::node::LeafId;
use crate::ops::{self, Activation, AdafactorArgs, AdafactorAverages, AdamWArgs};
use crate::ops::{Conv, ConvArgs, GroupNormArgs, LinearArgs, Mask, Padding};
use crate::stored::WeightBytes;
use crate::tensor::Tensor;
use crate::weight::Weight;

const DEVICES: [Device; 2] = [Device::Cpu, Device::Reference];

fn adamw(step: u64) -> AdamWArgs {
    AdamWArgs { beta1: 0.9, beta2: 0.999, eps: 1e-8, step, lr: 0.01 }
}

/// A parameter of this shape, its averages and the last direction, after some steps on gradients that are the same everywhere.
fn trained(device: Device, shape: &[usize], adafactor: bool) -> Vec<Tensor> {
    let mut p = noise(shape, 1).to_device(device);
    let sizes: Vec<Vec<usize>> = match shape {
        [outer @ .., rows, columns] if adafactor => {
            vec![[outer, &[*rows]].concat(), [outer, &[*columns]].concat()]
        }
        _ => vec![shape.to_vec(); if adafactor { 1 } else { 2 }],
    };
    let mut averages: Vec<Tensor> = sizes.iter().map(|shape| device.kept_zeros(shape)).collect();
    let mut sum = device.kept_zeros(shape);
    for step in 1..4 {
        let mut grad = noise(shape, 10 + step as u32).to_device(device);
        ops::add_to(&mut sum, &grad);
        let factor = match averages.as_mut_slice() {
            [m, v] if !adafactor => ops::adamw(&adamw(step), [m, v], &mut grad),
            averages => {
                let averages = match averages {
                    [rows, columns] => AdafactorAverages::Factored { rows, columns },
                    [average] => AdafactorAverages::Full(average),
                    _ => unreachable!("one or two"),
                };
                let args = AdafactorArgs { beta2: 0.4, eps: 1e-30, clip_threshold: 0.5, lr: 0.01 };
                ops::adafactor(&args, averages, &mut grad)
            }
        };
        ops::step(&mut p, 0.99, &factor, &grad);
        sum = ops::add(&sum, &grad);
    }
    [vec![p, sum], averages].concat()
}

/// Protects the optimizers' kernels: vectors, matrices and the many small matrices of convolutions, of one task and of several.
#[test]
fn optimizers_beside_the_reference() {
    for shape in [&[7][..], &[3, 5], &[90, 301], &[301, 90], &[20, 60, 3, 3]] {
        for adafactor in [false, true] {
            let [found, want] = DEVICES.map(|device| trained(device, shape, adafactor));
            for (i, (found, want)) in found.iter().zip(&want).enumerate() {
                let what = format!("{shape:?}, adafactor {adafactor}, tensor {i}");
                close(&what, found, want, 1e-4);
                let [found, want] = [found, want].map(ops::sum_squares);
                assert!((found / want - 1.0).abs() < 1e-4, "{what}: {found}, expected {want}");
            }
        }
    }
}

/// A UNet in small: a ResNet that a timestep shifts, a transformer at half the size, and a way back up with a skip.
struct Network {
    weights: BTreeMap<&'static str, Weight>,
    norm: [Tensor; 2],
}

/// The weights, with their shapes.
const SHAPES: [(&str, [usize; 4]); 11] = [
    ("conv_in", [8, 3, 3, 3]),
    ("time", [8, 8, 1, 1]),
    ("conv", [8, 8, 3, 3]),
    ("down", [8, 8, 3, 3]),
    ("to_q", [8, 8, 1, 1]),
    ("to_k", [8, 6, 1, 1]),
    ("to_v", [8, 6, 1, 1]),
    ("to_out", [8, 8, 1, 1]),
    ("ff_in", [32, 8, 1, 1]),
    ("ff_out", [8, 16, 1, 1]),
    ("conv_out", [3, 16, 3, 3]),
];

/// The bytes of a weight, in memory.
pub(super) struct Bytes(pub(super) Vec<u8>);

impl WeightBytes for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Network {
    /// Weights that train, read as those of files are.
    fn new(device: Device) -> Network {
        let weight = |(i, (name, shape)): (usize, (&'static str, [usize; 4]))| {
            let bytes = bytemuck::cast_slice(noise(&shape, i as u32).f32s()).to_vec();
            (name, Weight::lazy(Box::new(Bytes(bytes)), DType::F32, shape, DType::F32, device).var())
        };
        let norm = [device.full(&[8], 1.0, DType::F32), device.zeros(&[8], DType::F32)];
        Network { weights: SHAPES.into_iter().enumerate().map(weight).collect(), norm }
    }

    fn linear(&self, name: &str, x: &Tensor, act: Activation, residual: Option<&Tensor>) -> Tensor {
        ops::linear(x, &self.weights[name], LinearArgs { bias: None, act, residual })
    }

    fn conv(&self, name: &str, x: &Tensor, stride: usize, args: ConvArgs) -> Tensor {
        ops::conv2d(x, &self.weights[name], Conv { stride, padding: Padding::Same }, args)
    }

    /// sample (2, 4, 4, 3), text (2, 3, 6) → (2, 4, 4, 3).
    fn forward(&self, sample: &Tensor, text: &Tensor) -> Tensor {
        let [weight, bias] = &self.norm;
        let emb = ops::timestep_embedding(&[3.0, 500.0], 8, true, 0.0, sample.device());
        let shift = self.linear("time", &ops::silu(&emb), Activation::None, None); // (2, 8)
        let x = self.conv("conv_in", sample, 1, ConvArgs::default());
        let h = ops::group_norm(&x, weight, bias, GroupNormArgs { groups: 2, eps: 1e-5, silu: true });
        let args = ConvArgs { shift: Some(&shift), residual: Some(&x), ..ConvArgs::default() };
        let skip = self.conv("conv", &h, 1, args); // (2, 4, 4, 8)
        let x = self.conv("down", &skip, 2, ConvArgs::default()).reshape(&[2, 4, 8]);
        let q = self.linear("to_q", &ops::layer_norm(&x, weight, bias, 1e-5), Activation::None, None);
        let [k, v] = ["to_k", "to_v"].map(|name| self.linear(name, text, Activation::None, None));
        let y = ops::attention(&q, &k, &v, 1, Mask::None);
        let x = self.linear("to_out", &y, Activation::None, Some(&x));
        let h = self.linear("ff_in", &ops::layer_norm(&x, weight, bias, 1e-5), Activation::Geglu, None);
        let x = self.linear("ff_out", &h, Activation::None, Some(&x)).reshape(&[2, 2, 2, 8]);
        self.conv("conv_out", &ops::concat(&[&ops::upsample_nearest2x(&x), &skip]), 1, ConvArgs::default())
    }

    /// Takes a step of AdamW with fresh averages, and gives the loss.
    fn step(&mut self, step: u64) -> Tensor {
        let device = self.norm[0].device();
        let on = |shape: &[usize], seed| noise(shape, seed).to_device(device);
        let y = self.forward(&on(&[2, 4, 4, 3], 50), &on(&[2, 3, 6], 51));
        let loss = ops::mse(&y, &on(&[2, 4, 4, 3], 52), Some(&on(&[2, 4, 4], 53)));
        let mut gradients: HashMap<LeafId, Tensor> = HashMap::new();
        loss.backward_with(device.full(&[], 1.0, DType::F32), &mut |leaf, gradient| {
            gradients.insert(leaf, gradient);
        });
        for (name, weight) in &mut self.weights {
            let leaf = weight.leaf_id().expect("a weight that trains");
            let mut gradient = gradients.remove(&leaf).unwrap_or_else(|| panic!("{name}: no gradient"));
            let averages = &mut [0, 1].map(|_| device.kept_zeros(gradient.shape()));
            let factor = ops::adamw(&adamw(step), averages.each_mut(), &mut gradient);
            weight.step(0.999, &factor, &gradient);
        }
        loss
    }
}

/// Protects a second device: a whole network computes, goes back and learns on the device of its weights, with the CPU's
/// numbers. A tensor that one op made elsewhere would be refused by the next.
#[test]
fn a_network_trains_beside_the_reference() {
    let mut networks = DEVICES.map(Network::new);
    for step in 1..4 {
        let [found, want] = networks.each_mut().map(|network| network.step(step));
        close(&format!("loss of step {step}"), &found, &want, 1e-4);
    }
    let [found, want] = &networks;
    for (name, weight) in &found.weights {
        close(name, &weight.values(), &want.weights[name].values(), 1e-3);
    }
}
