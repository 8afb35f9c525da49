//! A network as a list of ops: read from the metadata of a safetensors file, executed one after the other.

use std::collections::HashMap;

use calotype_tensor::ops::{LinearArgs, linear};
use calotype_tensor::{DType, Device, Tensor, Weight};
use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use super::ops::{self, Window};

/// A list of ops, and their constants.
pub struct Network {
    described: Described,
    /// The kernels of convolutions by name, as matrices (O, ky · kx · I), and their sizes (ky, kx).
    kernels: HashMap<String, (Weight, [usize; 2])>,
    /// All other constants.
    constants: HashMap<String, Tensor>,
    /// For each slot the number of the last op that reads it: then its memory is given back. Outputs stay.
    last_uses: HashMap<usize, usize>,
}

/// The list as the file has it. Ops read and write slots: a tensor (H, W, C) each.
#[derive(Deserialize)]
struct Described {
    input: usize,
    outputs: [usize; 2],
    ops: Vec<Op>,
}

#[derive(Deserialize)]
struct Op {
    input: usize,
    output: usize,
    #[serde(flatten)]
    kind: Kind,
}

impl Op {
    /// The slots that the op reads.
    fn inputs(&self) -> impl Iterator<Item = usize> {
        let other = if let Kind::Add { other, .. } = self.kind { Some(other) } else { None };
        [self.input].into_iter().chain(other)
    }
}

#[derive(Deserialize)]
#[serde(tag = "op")]
enum Kind {
    #[serde(rename = "conv_2d")]
    Conv2d {
        #[serde(flatten)]
        window: Window,
        weight: String,
        bias: String,
        relu: bool,
    },
    #[serde(rename = "depthwise_conv_2d")]
    DepthwiseConv2d {
        #[serde(flatten)]
        window: Window,
        weight: String,
        bias: String,
    },
    #[serde(rename = "add")]
    Add { other: usize, relu: bool },
    /// Channels of zeros are added.
    #[serde(rename = "pad")]
    Pad { channels: usize },
    #[serde(rename = "prelu")]
    Prelu { slope: String },
    #[serde(rename = "max_pool_2d")]
    MaxPool2d,
    #[serde(rename = "resize_bilinear")]
    ResizeBilinear,
    #[serde(rename = "depth_to_space")]
    DepthToSpace,
    #[serde(rename = "reshape")]
    Reshape { shape: Vec<usize> },
}

impl Network {
    /// The network of this name in a file that the binary carries.
    ///
    /// # Panics
    /// If the file is not one that `tools/faces.py` has written.
    pub fn carried(file: &[u8], name: &str) -> Network {
        Self::read(file, name).unwrap_or_else(|problem| panic!("the carried file of {name}: {problem}"))
    }

    fn read(file: &[u8], name: &str) -> Result<Network, String> {
        let (_, header) = SafeTensors::read_metadata(file).map_err(|e| e.to_string())?;
        let list = header.metadata().as_ref().and_then(|all| all.get(name)).ok_or("no list of ops")?;
        let described: Described = serde_json::from_str(list).map_err(|e| e.to_string())?;
        let (mut kernels, mut constants) = (HashMap::new(), HashMap::new());
        let tensors = SafeTensors::deserialize(file).map_err(|e| e.to_string())?;
        for (key, view) in tensors.iter().filter(|(key, _)| key.split('.').next() == Some(name)) {
            match *view.shape() {
                [o, ky, kx, i] => {
                    let shape = [o, ky * kx * i, 1, 1];
                    let weight = Weight::new(view.data(), DType::F16, shape, DType::F32, Device::Cpu);
                    kernels.insert(key.to_owned(), (weight, [ky, kx]));
                }
                _ => drop(constants.insert(key.to_owned(), widened(&view))),
            }
        }
        let reads =
            described.ops.iter().enumerate().flat_map(|(i, op)| op.inputs().map(move |slot| (slot, i)));
        let mut last_uses: HashMap<usize, usize> = reads.collect();
        last_uses.retain(|slot, _| !described.outputs.contains(slot));
        Ok(Network { described, kernels, constants, last_uses })
    }

    /// picture (side, side, 3) → the two outputs.
    pub fn run(&self, picture: &[f32], side: usize) -> [Vec<f32>; 2] {
        let Described { input, outputs, ops } = &self.described;
        let slot_count = ops.iter().map(|op| op.output + 1).max().unwrap_or(0).max(input + 1);
        let mut slots = vec![Tensor::zeros(&[0], DType::F32); slot_count];
        slots[*input] = Tensor::from_slice(picture, &[side, side, 3]);
        for (i, op) in ops.iter().enumerate() {
            slots[op.output] = self.computed(op, &slots);
            for slot in op.inputs().filter(|slot| self.last_uses.get(slot) == Some(&i)) {
                slots[slot] = Tensor::zeros(&[0], DType::F32);
            }
        }
        outputs.map(|slot| slots[slot].to_vec())
    }

    fn computed(&self, op: &Op, slots: &[Tensor]) -> Tensor {
        let x = &slots[op.input];
        let constant = |name: &String| &self.constants[name];
        match &op.kind {
            Kind::Conv2d { window, weight, bias, relu } => {
                let (weight, kernel) = &self.kernels[weight];
                let args = LinearArgs { bias: Some(constant(bias)), ..LinearArgs::default() };
                let y = linear(&ops::patches(x, window, *kernel), weight, args);
                if *relu { ops::relu(y) } else { y }
            }
            Kind::DepthwiseConv2d { window, weight, bias } => {
                ops::depthwise_conv_2d(x, window, constant(weight), constant(bias))
            }
            Kind::Add { other, relu } => {
                let y = ops::add(x, &slots[*other]);
                if *relu { ops::relu(y) } else { y }
            }
            Kind::Pad { channels } => ops::pad_channels(x, *channels),
            Kind::Prelu { slope } => ops::prelu(x, constant(slope)),
            Kind::MaxPool2d => ops::max_pool_2d(x),
            Kind::ResizeBilinear => ops::resize_bilinear(x),
            Kind::DepthToSpace => ops::depth_to_space(x),
            Kind::Reshape { shape } => x.reshape(shape),
        }
    }
}

/// The half floats of a constant as floats.
fn widened(view: &TensorView) -> Tensor {
    let halves = view.data().chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]));
    Tensor::from_vec(halves.map(f16::to_f32).collect(), view.shape())
}
