//! Shapes at the border: empty tensors, kernels that are not square, queries that see nothing; and those that do not fit,
//! which every op refuses by name.

mod common;

use calotype_tensor::ops::{
    self, Activation, Conv, ConvArgs, GroupNormArgs, LinearArgs, Mask, Padding, WindowArgs,
};
use calotype_tensor::{DType, Device, Tensor, Weight};
use common::{gradients_for, noise};

const SAME: Conv = Conv { stride: 1, padding: Padding::Same };

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32)
}

fn weight(shape: &[usize]) -> Weight {
    Weight::from_tensor(&noise(shape, 9))
}

/// That `op` panics, with a message that holds all of `says`.
fn refused(says: &[&str], op: impl FnOnce() -> Tensor) {
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(op)).expect_err(says[0]);
    let text = refused.downcast_ref::<String>().cloned();
    let text = text.or(refused.downcast_ref::<&str>().map(|text| text.to_string())).expect("a message");
    assert!(says.iter().all(|part| text.contains(part)), "{text:?}, expected {says:?}");
}

/// Runs `op` on leaves of these shapes: y has shape `want`, each gradient its leaf's shape, and every number is `value`.
fn all_are(value: f32, want: &[usize], shapes: &[&[usize]], op: impl Fn(&[Tensor]) -> Tensor) {
    // Memory that the pool hands out again must not show.
    for size in [64, 4096, 1 << 14] {
        drop(Tensor::full(&[size], 7.0, DType::F32));
    }
    for dtype in [DType::F32, DType::BF16] {
        let leaves: Vec<Tensor> =
            shapes.iter().map(|shape| Tensor::full(shape, value, DType::F32).to_dtype(dtype).var()).collect();
        let y = op(&leaves);
        assert_eq!(y.shape(), want, "{shapes:?}");
        assert!(y.to_vec().iter().all(|y| *y == value), "{shapes:?}: {:?}", y.to_vec());
        let gradients = gradients_for(&y, Tensor::zeros(want, y.dtype()));
        for leaf in &leaves {
            let gradient = gradients.get(leaf).unwrap_or_else(|| panic!("{shapes:?}: no gradient"));
            assert_eq!(gradient.shape(), leaf.shape(), "{shapes:?}");
            assert!(gradient.to_vec().iter().all(|g| *g == 0.0), "{shapes:?}: {:?}", gradient.to_vec());
        }
    }
}

/// Protects products without rows, outputs or inputs: no division by zero, no stale memory, forward and backward. A sum
/// over nothing is 0, to which bias and residual are added.
#[test]
fn empty_products() {
    let linear = |x: &[Tensor]| {
        ops::linear(
            &x[0],
            &Weight::from_tensor(&x[1]),
            LinearArgs { bias: x.get(2), residual: x.get(3), ..LinearArgs::default() },
        )
    };
    all_are(0.0, &[0, 4], &[&[0, 8], &[4, 8], &[4], &[0, 4]], linear);
    all_are(0.0, &[2, 0, 4], &[&[2, 0, 8], &[4, 8]], linear);
    all_are(0.0, &[3, 0], &[&[3, 8], &[0, 8], &[0]], linear);
    all_are(0.0, &[3, 4], &[&[3, 0], &[4, 0]], linear);
    let y = ops::linear(
        &zeros(&[3, 0]),
        &weight(&[4, 0]),
        LinearArgs { bias: Some(&noise(&[4], 1)), act: Activation::Silu, ..LinearArgs::default() },
    );
    let bias = ops::silu(&noise(&[4], 1)).to_vec();
    common::close("silu(bias)", &y, &Tensor::from_vec(bias.repeat(3), &[3, 4]), 1e-6);
    let gated = ops::linear(
        &zeros(&[0, 8]),
        &weight(&[64, 8]),
        LinearArgs { act: Activation::Geglu, ..LinearArgs::default() },
    );
    assert_eq!(gated.shape(), [0, 32]);
}

/// The same of convolutions, with kernels of 1 and 3.
#[test]
fn empty_convolutions() {
    let conv = |x: &[Tensor]| {
        ops::conv2d(
            &x[0],
            &Weight::from_tensor(&x[1]),
            SAME,
            ConvArgs { bias: x.get(2), shift: x.get(3), ..ConvArgs::default() },
        )
    };
    for side in [1, 3] {
        all_are(0.0, &[0, 32, 32, 4], &[&[0, 32, 32, 8], &[4, 8, side, side], &[4], &[0, 4]], conv);
        all_are(0.0, &[1, 32, 32, 4], &[&[1, 32, 32, 0], &[4, 0, side, side], &[4], &[1, 4]], conv);
        all_are(0.0, &[1, 32, 32, 0], &[&[1, 32, 32, 8], &[0, 8, side, side], &[0], &[1, 0]], conv);
    }
}

/// Attention over no keys gives zeros; of no queries, entries or features it is empty.
#[test]
fn empty_attention() {
    let attention = |x: &[Tensor]| ops::attention(&x[0], &x[1], &x[2], 2, Mask::None);
    all_are(0.0, &[1, 3, 16], &[&[1, 3, 16], &[1, 0, 16], &[1, 0, 16]], attention);
    all_are(0.0, &[1, 0, 16], &[&[1, 0, 16], &[1, 5, 16], &[1, 5, 16]], attention);
    all_are(0.0, &[0, 3, 16], &[&[0, 3, 16], &[0, 5, 16], &[0, 5, 16]], attention);
    all_are(0.0, &[1, 3, 0], &[&[1, 3, 0], &[1, 5, 0], &[1, 5, 0]], attention);
}

/// Every other op takes dimensions of 0.
#[test]
fn empty_elsewhere() {
    for shape in [&[0, 4][..], &[3, 0], &[2, 0, 4], &[0, 0, 0]] {
        let width = &shape[shape.len() - 1..];
        all_are(0.0, shape, &[shape], |x| ops::softmax(&x[0]));
        all_are(0.0, shape, &[shape], |x| ops::silu(&x[0]));
        all_are(0.0, shape, &[shape, width, width], |x| ops::layer_norm(&x[0], &x[1], &x[2], 1e-5));
        all_are(0.0, shape, &[shape, width, width], |x| {
            ops::group_norm(&x[0], &x[1], &x[2], GroupNormArgs { groups: 2, eps: 1e-5, silu: false })
        });
        all_are(0.0, shape, &[shape, shape], |x| ops::add(&x[0], &x[1]));
        assert_eq!(ops::sum(&zeros(shape)).f32s(), [0.0]);
        assert!(ops::mean(&zeros(shape)).f32s()[0].is_nan());
    }
    all_are(0.0, &[3, 0], &[&[3, 0]], |x| ops::geglu(&x[0]));
    all_are(0.0, &[3, 0], &[&[3, 0], &[3, 0]], |x| ops::concat(&[&x[0], &x[1]]));
    all_are(0.0, &[3, 2], &[&[3, 0], &[3, 2]], |x| ops::concat(&[&x[0], &x[1]]));
    all_are(0.0, &[3, 0], &[&[3, 4]], |x| ops::slice_last(&x[0], 4, 0));
    all_are(0.0, &[0, 4], &[&[3, 4]], |x| ops::slice_batch(&x[0], 1, 0));
    all_are(0.0, &[2, 0], &[&[3, 0]], |x| ops::embedding(&x[0], &[0, 2]));
    all_are(0.0, &[0, 4], &[&[3, 4]], |x| ops::embedding(&x[0], &[]));
    all_are(0.0, &[1, 4, 6, 0], &[&[1, 2, 3, 0]], |x| ops::upsample_nearest2x(&x[0]));
    all_are(0.0, &[1, 0, 2, 4], &[&[1, 2, 3, 4]], |x| ops::crop(&x[0], 0, 2));
}

/// A kernel that is not square is padded by its height above and below and by its width at the sides: beside a plain loop.
#[test]
fn kernels_that_are_not_square() {
    for (kh, kw, stride) in [(1, 3, 1), (3, 1, 1), (5, 3, 1), (1, 3, 2), (2, 3, 1)] {
        let (x, w) = (noise(&[2, 5, 7, 3], 1), noise(&[4, 3, kh, kw], 2));
        let y = ops::conv2d(
            &x,
            &Weight::from_tensor(&w),
            Conv { stride, padding: Padding::Same },
            ConvArgs::default(),
        );
        let side = |size: usize, k: usize| (size + k / 2 * 2 - k) / stride + 1;
        let shape = [2, side(5, kh), side(7, kw), 4];
        let mut want = Vec::new();
        for i in 0..shape.iter().product() {
            let (image, row, column, out) =
                (i / (shape[1] * shape[2] * 4), i / (shape[2] * 4) % shape[1], i / 4 % shape[2], i % 4);
            let mut sum = 0.0;
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let at =
                    ((row * stride + ky).checked_sub(kh / 2), (column * stride + kx).checked_sub(kw / 2));
                let (Some(sy @ 0..5), Some(sx @ 0..7)) = at else { continue };
                for c in 0..3 {
                    sum += x.f32s()[((image * 5 + sy) * 7 + sx) * 3 + c]
                        * w.f32s()[((out * 3 + c) * kh + ky) * kw + kx];
                }
            }
            want.push(sum);
        }
        common::close(&format!("{kh} × {kw}"), &y, &Tensor::from_vec(want, &shape), 1e-5);
    }
}

/// A query from which a bias hides every key gets zeros, and gives no gradient; the others are as without it.
#[test]
fn a_query_that_sees_nothing() {
    let (queries, keys) = (5, 37);
    let [q, k, v] = [queries, keys, keys].map(|n| noise(&[2, n, 32], n as u32));
    for hidden in [f32::NEG_INFINITY, f32::MIN] {
        let mut bias = noise(&[queries, keys], 3).to_vec();
        bias[2 * keys..3 * keys].fill(hidden);
        bias[3 * keys..4 * keys - 1].fill(hidden); // sees the last key
        let bias = Tensor::from_vec(bias, &[queries, keys]);
        let leaves = [&q, &k, &v].map(|x| x.clone().var());
        let y = ops::attention(&leaves[0], &leaves[1], &leaves[2], 2, Mask::Bias(&bias));
        let row = |x: &Tensor, i: usize| x.to_vec()[i * 32..(i + 1) * 32].to_vec();
        for image in 0..2 {
            assert_eq!(row(&y, image * queries + 2), [0.0; 32]);
            let last = Tensor::from_vec(row(&v, image * keys + keys - 1), &[32]);
            common::close("the one key", &Tensor::from_vec(row(&y, image * queries + 3), &[32]), &last, 1e-6);
        }
        let gradients = gradients_for(&y, noise(y.shape(), 4));
        assert_eq!(row(gradients.get(&leaves[0]).expect("dq"), 2), [0.0; 32]);

        // Without that query.
        let without = |x: &Tensor| {
            let [batch, queries, width] = [x.dim(0), x.dim(1), x.dim(2)];
            ops::concat(&[&rows(x, 0..2), &rows(x, 3..5)]).reshape(&[batch, queries - 1, width])
        };
        let seen = without(&bias.reshape(&[1, queries, keys])).reshape(&[4, keys]);
        let other = [&without(&q), &k, &v].map(|x| x.clone().var());
        let z = ops::attention(&other[0], &other[1], &other[2], 2, Mask::Bias(&seen));
        common::close("y", &without(&y), &z, 1e-6);
        let other_gradients = gradients_for(&z, without(&noise(y.shape(), 4)));
        for i in 1..3 {
            let (found, want) = (gradients.get(&leaves[i]).unwrap(), other_gradients.get(&other[i]).unwrap());
            common::close("dk, dv", found, want, 1e-5);
        }
    }
}

/// Rows of x (B, T, C) → (B, C · rows) as an inner part that `concat` puts together again.
fn rows(x: &Tensor, range: std::ops::Range<usize>) -> Tensor {
    let (entries, width) = (x.dim(0), x.last_dim());
    let flat = x.reshape(&[entries, x.dim(1) * width]);
    ops::slice_last(&flat, range.start * width, range.len() * width)
}

/// Products refuse what does not fit, by name, with expected and found.
#[test]
fn products_check_their_shapes() {
    let linear = |x: &[usize], bias: Option<&[usize]>, residual: Option<Tensor>| {
        let bias = bias.map(zeros);
        let x = zeros(x);
        move || {
            ops::linear(
                &x,
                &weight(&[4, 8]),
                LinearArgs { bias: bias.as_ref(), residual: residual.as_ref(), ..LinearArgs::default() },
            )
        }
    };
    refused(&["linear", "shape of x", "(.., 8)", "[2, 7]"], linear(&[2, 7], None, None));
    refused(&["linear", "shape of x", "[]"], linear(&[], None, None));
    refused(&["linear", "bias", "[4]", "[3]"], linear(&[2, 8], Some(&[3]), None));
    refused(&["linear", "residual", "[2, 4]", "[4, 4]"], linear(&[2, 8], None, Some(zeros(&[4, 4]))));
    refused(&["linear", "residual", "[2, 4]", "[8]"], linear(&[2, 8], None, Some(zeros(&[8]))));
    let half = Tensor::zeros(&[2, 4], DType::BF16);
    refused(&["linear", "dtype of residual", "f32", "bf16"], linear(&[2, 8], None, Some(half)));
    refused(&["linear", "GEGLU", "even", "3"], || {
        ops::linear(
            &zeros(&[2, 8]),
            &weight(&[3, 8]),
            LinearArgs { act: Activation::Geglu, ..LinearArgs::default() },
        )
    });
    refused(&["linear", "kernel", "[1, 1]", "[3, 3]"], || {
        ops::linear(&zeros(&[2, 8]), &weight(&[4, 8, 3, 3]), LinearArgs::default())
    });
    let conv =
        |x: &[usize], kernel: [usize; 2], stride, shift: Option<&[usize]>, residual: Option<&[usize]>| {
            let (x, shift, residual) = (zeros(x), shift.map(zeros), residual.map(zeros));
            let w = weight(&[4, 8, kernel[0], kernel[1]]);
            let conv = Conv { stride, padding: Padding::Same };
            move || {
                ops::conv2d(
                    &x,
                    &w,
                    conv,
                    ConvArgs { shift: shift.as_ref(), residual: residual.as_ref(), ..ConvArgs::default() },
                )
            }
        };
    let x = &[2, 6, 6, 8];
    refused(&["conv2d", "(B, H, W, C)", "[6, 6, 8]"], conv(&[6, 6, 8], [3, 3], 1, None, None));
    refused(
        &["conv2d", "shape of x", "[2, 6, 6, 8]", "[2, 6, 6, 7]"],
        conv(&[2, 6, 6, 7], [3, 3], 1, None, None),
    );
    refused(&["conv2d", "shift", "[2, 4]", "[1, 4]"], conv(x, [3, 3], 1, Some(&[1, 4]), None));
    refused(
        &["conv2d", "residual", "[2, 6, 6, 4]", "[2, 3, 3, 4]"],
        conv(x, [3, 3], 1, None, Some(&[2, 3, 3, 4])),
    );
    refused(&["conv2d", "stride", "1 or 2", "0"], conv(x, [3, 3], 0, None, None));
    refused(&["conv2d", "kernel", "[0, 6]", "[3, 3]"], conv(&[2, 0, 6, 8], [3, 3], 1, None, None));
    refused(&["conv2d", "kernel", "[0, 3]"], conv(x, [0, 3], 1, None, None));
}

/// So does attention in windows.
#[test]
fn window_attention_checks_its_shapes() {
    let attention = |q: &[usize], k: &[usize], heads, [window, shift]: [usize; 2], bias: &[usize]| {
        let [q, k, scale, bias] = [q, k, &[2], bias].map(zeros);
        move || {
            let args =
                WindowArgs { heads, window, shift, cosine: false, scale: &scale, bias: &bias, apart: 0.0 };
            ops::window_attention(&q, &k, &q, args)
        }
    };
    let (x, bias) = (&[1, 4, 6, 8], &[2, 4, 4]);
    refused(&["(B, H, W, C)", "[4, 6, 8]"], attention(&[4, 6, 8], x, 2, [2, 0], bias));
    refused(&["shape of k", "[1, 4, 6, 8]", "[1, 4, 4, 8]"], attention(x, &[1, 4, 4, 8], 2, [2, 0], bias));
    refused(&["width of q", "3 heads", "8"], attention(x, x, 3, [2, 0], bias));
    refused(&["width of q", "0 heads"], attention(x, x, 0, [2, 0], bias));
    refused(&["size of q", "window of 4", "4 × 6"], attention(x, x, 2, [4, 0], bias));
    refused(&["size of q", "window of 0"], attention(x, x, 2, [0, 0], bias));
    refused(&["shift", "less than a window of 2", "found 2"], attention(x, x, 2, [2, 2], bias));
    refused(&["shape of bias", "[2, 4, 4]", "[2, 4, 9]"], attention(x, x, 2, [2, 1], &[2, 4, 9]));
    refused(&["shape of scale", "[4]", "[2]"], attention(x, x, 4, [2, 1], bias));
    refused(&["window_attention", "no gradient"], || {
        let (x, scale, bias) = (zeros(x).var(), zeros(&[2]), zeros(bias));
        let args = WindowArgs {
            heads: 2,
            window: 2,
            shift: 0,
            cosine: false,
            scale: &scale,
            bias: &bias,
            apart: 0.0,
        };
        ops::window_attention(&x, &x, &x, args)
    });
    assert_eq!(attention(&[0, 4, 6, 8], &[0, 4, 6, 8], 2, [2, 1], bias)().shape(), [0, 4, 6, 8]);
}

/// So do the other ops.
#[test]
fn ops_check_their_shapes() {
    let attention = |q: &[usize], k: &[usize], v: &[usize], heads| {
        let (q, k, v) = (zeros(q), zeros(k), zeros(v));
        move || ops::attention(&q, &k, &v, heads, Mask::None)
    };
    refused(&["attention", "(B, T, heads · d)", "[3, 16]"], attention(&[3, 16], &[1, 3, 16], &[1, 3, 16], 2));
    refused(
        &["attention", "shape of k", "[1, 5, 16]", "[2, 5, 16]"],
        attention(&[1, 3, 16], &[2, 5, 16], &[2, 5, 16], 2),
    );
    refused(
        &["attention", "shape of v", "[1, 5, 16]", "[1, 4, 16]"],
        attention(&[1, 3, 16], &[1, 5, 16], &[1, 4, 16], 2),
    );
    refused(
        &["attention", "width of q", "multiple of 8", "12"],
        attention(&[1, 3, 12], &[1, 3, 12], &[1, 3, 12], 1),
    );
    refused(&["attention", "0 heads"], attention(&[1, 3, 16], &[1, 3, 16], &[1, 3, 16], 0));
    refused(&["attention", "bias", "[3, 5]", "[5, 3]"], || {
        let (q, k) = (zeros(&[1, 3, 16]), zeros(&[1, 5, 16]));
        ops::attention(&q, &k, &k, 2, Mask::Bias(&zeros(&[5, 3])))
    });
    let (x, narrow) = (zeros(&[2, 4]), zeros(&[3]));
    refused(&["group_norm", "weight", "[4]", "[3]"], || {
        ops::group_norm(&x, &narrow, &narrow, GroupNormArgs { groups: 2, eps: 1e-5, silu: false })
    });
    refused(&["group_norm", "groups", "4 channels", "3"], || {
        ops::group_norm(&x, &narrow, &narrow, GroupNormArgs { groups: 3, eps: 1e-5, silu: false })
    });
    refused(&["group_norm", "groups", "4 channels", "0"], || {
        ops::group_norm(&x, &narrow, &narrow, GroupNormArgs { groups: 0, eps: 1e-5, silu: false })
    });
    refused(&["layer_norm", "weight", "[4]", "[3]"], || ops::layer_norm(&x, &narrow, &narrow, 1e-5));
    refused(&["add", "[2, 4]", "[3]"], || ops::add(&x, &narrow));
    refused(&["mul", "bf16", "f32"], || ops::mul(&x.to_dtype(DType::BF16), &x));
    refused(&["lincomb", "at least one"], || ops::lincomb(&[]));
    refused(&["lincomb", "[2, 4]", "[3]"], || ops::lincomb(&[(1.0, &x), (2.0, &narrow)]));
    refused(&["mse", "target", "[2, 4]", "[3]"], || ops::mse(&x, &narrow, None));
    refused(&["mse", "weight", "[2, 4]", "[3]"], || ops::mse(&x, &x, Some(&narrow)));
    refused(&["concat", "at least one"], || ops::concat(&[]));
    refused(&["concat", "[2, 3]", "[3, 3]"], || ops::concat(&[&x, &zeros(&[3, 3])]));
    refused(&["cat_batch", "[2, 4]", "[2, 3]"], || ops::cat_batch(&[&x, &zeros(&[2, 3])]));
    refused(&["slice_last", "4", "found 3 from 2"], || ops::slice_last(&x, 2, 3));
    refused(&["slice_last", "4"], || ops::slice_last(&x, usize::MAX, 2));
    refused(&["slice_batch", "2", "found 1 from 2"], || ops::slice_batch(&x, 2, 1));
    refused(&["embedding", "less than 2", "found 2"], || ops::embedding(&x, &[0, 2]));
    refused(&["geglu", "even", "3"], || ops::geglu(&narrow));
    refused(&["softmax", "(.., C)", "[]"], || ops::softmax(&zeros(&[])));
    refused(&["crop", "2 × 3", "3 × 3"], || ops::crop(&zeros(&[1, 2, 3, 1]), 3, 3));
    refused(&["upsample_nearest2x", "(B, H, W, C)", "[2, 4]"], || ops::upsample_nearest2x(&x));
}

/// Sizes that usize or memory cannot hold are refused before memory is taken, f16 as an activation too.
#[test]
fn tensors_that_cannot_be() {
    refused(&["expected at most", "bytes"], || zeros(&[(1 << 62) - 16]));
    refused(&["[4611686018427387888, 8]", "expected at most"], || zeros(&[(1 << 62) - 16, 8]));
    refused(&["expected at most"], || Tensor::full(&[usize::MAX, usize::MAX], 1.0, DType::BF16));
    refused(&["reshape", "8 elements", "[3]"], || zeros(&[2, 4]).reshape(&[3]));
    refused(&["expected at most"], || zeros(&[0]).reshape(&[1 << 33, 1 << 33]));
    refused(&["f32 or bf16", "f16"], || Tensor::zeros(&[2], DType::F16));
    refused(&["f32 or bf16", "f16"], || Tensor::full(&[2], 0.0, DType::F16));
    refused(&["f32 or bf16", "f16"], || zeros(&[2]).to_dtype(DType::F16));
    assert_eq!(zeros(&[usize::MAX, usize::MAX, 0]).numel(), 0);
    for (shape, says) in [([4, 3], "expected 48, found 44"), ([1 << 33, 1 << 31], "expected at most")] {
        refused(&["weight", says], move || {
            Weight::new(&[0; 44], DType::F32, [shape[0], shape[1], 1, 1], DType::F32, Device::Cpu);
            zeros(&[])
        });
    }
}

/// All of the above with every instruction set of this CPU.
#[test]
fn every_isa() {
    common::rerun_for_every_isa("every_isa");
}
