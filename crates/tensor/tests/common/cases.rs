//! Every op, for the tests that treat all alike.

use std::sync::Arc;

use calotype_tensor::ops::{
    self, Activation, Conv, ConvArgs, GroupNormArgs, LinearArgs, Mask, Padding, WindowArgs,
};
use calotype_tensor::{DType, Tensor, Weight};

use super::{gradients_for, noise};

type Function = Arc<dyn Fn(&[Tensor]) -> Tensor + Send + Sync>;

/// An op, and f32 inputs for it, through all of which a gradient flows.
pub struct Case {
    pub name: String,
    pub inputs: Vec<Tensor>,
    pub f: Function,
}

fn case(name: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Tensor + Send + Sync + 'static) -> Case {
    let seed = |i: usize| name.len() as u32 * 100 + i as u32;
    let inputs = shapes.iter().enumerate().map(|(i, shape)| noise(shape, seed(i))).collect();
    Case { name: name.to_string(), inputs, f: Arc::new(f) }
}

/// A constant on the device of an input.
fn beside(x: &Tensor, constant: &Tensor) -> Tensor {
    constant.to_device(x.device())
}

/// y, and the gradients of all inputs for a fixed gradient of y.
pub fn run(case: &Case, inputs: &[Tensor]) -> (Tensor, Vec<Tensor>) {
    let leaves: Vec<Tensor> = inputs.iter().map(|x| x.clone().var()).collect();
    let y = (case.f)(&leaves);
    let dy = noise(y.shape(), 77).to_dtype(DType::BF16).to_dtype(y.dtype()).to_device(y.device());
    let gradients = gradients_of(&case.name, &y, dy, &leaves);
    (y.detach(), gradients)
}

/// The gradients of all leaves for a gradient of y.
pub fn gradients_of(name: &str, y: &Tensor, dy: Tensor, leaves: &[Tensor]) -> Vec<Tensor> {
    let mut gradients = gradients_for(y, dy);
    let take = |(i, leaf)| gradients.take(leaf).unwrap_or_else(|| panic!("{name}: input {i}"));
    leaves.iter().enumerate().map(take).collect()
}

/// Every op, at sizes where one task does all (`large` false) or where several must share.
pub fn cases(large: bool) -> Vec<Case> {
    [arithmetic(large), norms(large), movers(large), losses(large), products(large)]
        .into_iter()
        .flatten()
        .collect()
}

fn arithmetic(large: bool) -> Vec<Case> {
    let rows = if large { 1100 } else { 5 };
    let one: &[usize] = &[rows, 46];
    vec![
        case("add", &[one, one], |x| ops::add(&x[0], &x[1])),
        case("mul", &[one, one], |x| ops::mul(&x[0], &x[1])),
        case("scale", &[one], |x| ops::scale(&x[0], -0.7)),
        case("lincomb", &[one, one, one], |x| ops::lincomb(&[(0.5, &x[0]), (-2.0, &x[1]), (1.5, &x[2])])),
        case("silu", &[one], |x| ops::silu(&x[0])),
        case("gelu", &[one], |x| ops::gelu(&x[0])),
        case("quick_gelu", &[one], |x| ops::quick_gelu(&x[0])),
        case("relu", &[one], |x| ops::relu(&x[0])),
        case("leaky_relu", &[one], |x| ops::leaky_relu(&x[0], 0.2)),
        case("geglu", &[one], |x| ops::geglu(&x[0])),
        case("softmax", &[one], |x| ops::softmax(&x[0])),
        case("twice", &[one], |x| ops::mul(&ops::silu(&x[0]), &x[0])),
    ]
}

fn norms(large: bool) -> Vec<Case> {
    let side = if large { 40 } else { 5 };
    let image: &[usize] = &[2, side, side - 1, 72];
    let sequence: &[usize] = &[2, side * side, 45];
    let (c72, c45): (&[usize], &[usize]) = (&[72], &[45]);
    let group = |silu| {
        move |x: &[Tensor]| ops::group_norm(&x[0], &x[1], &x[2], GroupNormArgs { groups: 6, eps: 1e-5, silu })
    };
    vec![
        case("group_norm", &[image, c72, c72], group(false)),
        case("group_norm_silu", &[image, c72, c72], group(true)),
        case("layer_norm", &[sequence, c45, c45], |x| ops::layer_norm(&x[0], &x[1], &x[2], 1e-5)),
    ]
}

fn movers(large: bool) -> Vec<Case> {
    let side = if large { 40 } else { 4 };
    let (image, thin): (&[usize], &[usize]) = (&[2, side, side - 1, 24], &[2, side, side - 1, 5]);
    let table: &[usize] = &[30, 24];
    let ids: Vec<u32> = (0..side as u32 * side as u32).map(|i| i * i % 29).collect();
    vec![
        case("upsample", &[image], |x| ops::upsample_nearest2x(&x[0])),
        case("crop", &[image], move |x| ops::crop(&x[0], side - 1, side - 3)),
        case("concat", &[image, thin], |x| ops::concat(&[&x[0], &x[1]])),
        case("slice_last", &[image], |x| ops::slice_last(&x[0], 3, 18)),
        case("cat_batch", &[image, image], |x| ops::cat_batch(&[&x[0], &x[1]])),
        case("slice_batch", &[image], |x| ops::slice_batch(&x[0], 1, 1)),
        case("embedding", &[table], move |x| ops::embedding(&x[0], &ids)),
        case("reshape", &[image], move |x| x[0].reshape(&[2 * side, (side - 1) * 24])),
    ]
}

fn losses(large: bool) -> Vec<Case> {
    let side = if large { 100 } else { 4 };
    let image: &[usize] = &[2, side, side, 4];
    let (mask, images) = (noise(&[2, side, side, 1], 1), noise(&[2], 2));
    vec![
        case("sum", &[image], |x| ops::sum(&x[0])),
        case("mean", &[image], |x| ops::mean(&x[0])),
        case("mse", &[image, image], |x| ops::mse(&x[0], &x[1], None)),
        case("mse_mask", &[image, image], move |x| ops::mse(&x[0], &x[1], Some(&beside(&x[0], &mask)))),
        case("mse_images", &[image, image], move |x| ops::mse(&x[0], &x[1], Some(&beside(&x[0], &images)))),
    ]
}

fn products(large: bool) -> Vec<Case> {
    let rows = if large { 333 } else { 7 };
    let (x, w, b, y): (&[usize], &[usize], &[usize], &[usize]) = (&[rows, 40], &[48, 40], &[48], &[rows, 48]);
    let halved: &[usize] = &[rows, 24];
    let linear = |act| {
        move |x: &[Tensor]| {
            ops::linear(
                &x[0],
                &Weight::from_tensor(&x[1]),
                LinearArgs { bias: Some(&x[2]), act, residual: Some(&x[3]) },
            )
        }
    };
    let mut cases = vec![
        case("linear", &[x, w, b, y], linear(Activation::None)),
        case("linear_silu", &[x, w, b, y], linear(Activation::Silu)),
        case("linear_gelu", &[x, w, b, y], linear(Activation::Gelu)),
        case("linear_quick_gelu", &[x, w, b, y], linear(Activation::QuickGelu)),
        case("linear_relu", &[x, w, b, y], linear(Activation::Relu)),
        case("linear_geglu", &[x, w, b, halved], linear(Activation::Geglu)),
        // Two halves of whole panels, whatever the kernel: those can be fused.
        case("linear_geglu_panels", &[x, &[128, 40], &[128], &[rows, 64]], linear(Activation::Geglu)),
    ];
    cases.extend(convolutions(large));
    let tokens = if large { 150 } else { 9 };
    let (q, k): (&[usize], &[usize]) = (&[2, tokens, 48], &[2, tokens + 4, 48]);
    let bias = noise(&[tokens, tokens + 4], 5);
    cases.extend([
        case("attention", &[q, k, k], |x| ops::attention(&x[0], &x[1], &x[2], 2, Mask::None)),
        case("attention_causal", &[q, q, q], |x| ops::attention(&x[0], &x[1], &x[2], 6, Mask::Causal)),
        case("attention_bias", &[q, k, k], move |x| {
            ops::attention(&x[0], &x[1], &x[2], 3, Mask::Bias(&beside(&x[0], &bias)))
        }),
    ]);
    cases
}

/// Ops that have no way back.
pub fn forward_only() -> Vec<Case> {
    let windows = |name: &str, shape: [usize; 4], heads: usize, window: usize, shift: usize, cosine: bool| {
        let (scale, bias) = (noise(&[heads], 1), noise(&[heads, window * window, window * window], 2));
        let scale = ops::scale(&scale, if cosine { 20.0 } else { 0.5 });
        case(name, &[&shape[..]; 3], move |x| {
            let [scale, bias] = [&scale, &bias].map(|constant| beside(&x[0], constant));
            let args = WindowArgs { heads, window, shift, cosine, scale: &scale, bias: &bias, apart: -3.0 };
            ops::window_attention(&x[0], &x[1], &x[2], args)
        })
    };
    vec![
        windows("window_attention", [2, 16, 8, 60], 2, 8, 0, false),
        windows("window_attention_shifted", [2, 16, 24, 60], 2, 8, 4, false),
        windows("window_attention_cosine", [3, 8, 8, 90], 3, 8, 4, true),
        // An odd number of features, more of them than a panel has, and windows that fill no panel.
        windows("window_attention_odd", [2, 6, 9, 42], 2, 3, 1, true),
        windows("window_attention_wide", [2, 5, 10, 70], 1, 5, 2, true),
        windows("window_attention_pixels", [2, 2, 3, 8], 8, 1, 0, false),
    ]
}

/// Ops on more images than two: as many as change how the work of all of them is cut into tasks.
pub fn batches() -> Vec<Case> {
    let conv = |x: &[Tensor]| {
        let conv = Conv { stride: 1, padding: Padding::Same };
        ops::conv2d(
            &x[0],
            &Weight::from_tensor(&x[1]),
            conv,
            ConvArgs { shift: x.get(2), ..ConvArgs::default() },
        )
    };
    let attention =
        |mask: fn() -> Mask<'static>| move |x: &[Tensor]| ops::attention(&x[0], &x[1], &x[2], 6, mask());
    let (q, k): (&[usize], &[usize]) = (&[7, 150, 48], &[7, 201, 48]);
    vec![
        case("attention_many", &[q, k, k], attention(|| Mask::None)),
        case("attention_many_causal", &[q, q, q], attention(|| Mask::Causal)),
        // Too few tiles for the tiled algorithm in each image, enough in all; and more tiles than are worked on at once.
        case("conv_many_small", &[&[5, 12, 11, 33], &[34, 33, 3, 3], &[5, 34]], conv),
        case("conv_many_big", &[&[9, 33, 32, 32], &[35, 32, 3, 3], &[9, 35]], conv),
    ]
}

fn convolutions(large: bool) -> Vec<Case> {
    let side = if large { 18 } else { 4 };
    let (image, bias): (&[usize], &[usize]) = (&[2, side, side - 1, 8], &[24]);
    let (three, one): (&[usize], &[usize]) = (&[24, 8, 3, 3], &[24, 8, 1, 1]);
    let (shift, same): (&[usize], &[usize]) = (&[2, 24], &[2, side, side - 1, 24]);
    // Large enough for the tiled algorithm, whatever `large` says.
    let (big, wide): (&[usize], &[usize]) = (&[2, 33, 32, 32], &[40, 32, 3, 3]);
    let (big_bias, big_shift, big_same): (&[usize], &[usize], &[usize]) = (&[40], &[2, 40], &[2, 33, 32, 40]);
    let conv = |stride, padding| {
        let conv = Conv { stride, padding };
        move |x: &[Tensor]| {
            let weight = Weight::from_tensor(&x[1]);
            ops::conv2d(
                &x[0],
                &weight,
                conv,
                ConvArgs { bias: x.get(2), shift: x.get(3), residual: x.get(4) },
            )
        }
    };
    let mut cases = vec![
        case("conv_3x3", &[image, three, bias, shift, same], conv(1, Padding::Same)),
        case("conv_big", &[big, wide, big_bias, big_shift, big_same], conv(1, Padding::Same)),
        case("conv_1x1", &[image, one, bias, shift, same], conv(1, Padding::Same)),
        case("conv_half", &[image, three, bias], conv(2, Padding::Same)),
        case("conv_bottom_right", &[image, three, bias], conv(2, Padding::BottomRight)),
    ];
    if large {
        // Enough tiles and channels for the tiled algorithm in bf16.
        let (image, kernels): (&[usize], &[usize]) = (&[2, 15, 16, 64], &[66, 64, 3, 3]);
        let (bias, shift, same): (&[usize], &[usize], &[usize]) = (&[66], &[2, 66], &[2, 15, 16, 66]);
        cases.push(case("conv_wide", &[image, kernels, bias, shift, same], conv(1, Padding::Same)));
    }
    cases
}
