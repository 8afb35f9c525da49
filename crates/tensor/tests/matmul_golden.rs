//! Linear layers, convolutions and attention, forward and all gradients, against PyTorch in f64.

mod common;

use calotype_tensor::ops::{self, Activation, Conv, ConvArgs, LinearArgs, Mask, Padding};
use calotype_tensor::{Tensor, Weight};
use common::Golden;

/// Bias, every activation and a residual; one row, odd sizes, a long inner dimension.
#[test]
fn linear() {
    let golden = Golden::load("ops_linear");
    for (case, p) in golden.cases() {
        let act = match p["act"].as_str().unwrap() {
            "none" => Activation::None,
            "silu" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "geglu" => Activation::Geglu,
            other => panic!("{case}: activation {other}"),
        };
        let [x, w, b, r] = ["x", "w", "b", "residual"].map(|name| golden.get(case, name).map(Tensor::var));
        let (x, w) = (x.unwrap(), w.unwrap());
        let y = ops::linear(
            &x,
            &Weight::from_tensor(&w),
            LinearArgs { bias: b.as_ref(), act, residual: r.as_ref() },
        );
        let optional = [("b", b.as_ref()), ("residual", r.as_ref())];
        let optional = optional.into_iter().filter_map(|(name, leaf)| Some((name, leaf?)));
        let leaves: Vec<_> = [("x", &x), ("w", &w)].into_iter().chain(optional).collect();
        golden.check(case, &y, &leaves);

        // Frozen parameters take the fused epilogues; x alone gets a gradient.
        let (w, b, r) = (w.detach(), b.as_ref().map(Tensor::detach), r.as_ref().map(Tensor::detach));
        let fused = ops::linear(
            &x.detach(),
            &Weight::from_tensor(&w),
            LinearArgs { bias: b.as_ref(), act, residual: r.as_ref() },
        );
        common::close(&format!("{case}.y, fused"), &fused, &golden.tensor(case, "y"), 1e-4);
        let y = ops::linear(
            &x,
            &Weight::from_tensor(&w),
            LinearArgs { bias: b.as_ref(), act, residual: r.as_ref() },
        );
        let gradients = common::gradients_for(&y, golden.tensor(case, "dy"));
        let dx = gradients.get(&x).expect("the gradient of x");
        common::close(&format!("{case}.dx, frozen"), dx, &golden.tensor(case, "dx"), 1e-4);
    }
}

/// 3 × 3 and 1 × 1, stride 1 and 2, both paddings, shift and residual, one pixel, odd sizes.
#[test]
fn conv2d() {
    let golden = Golden::load("ops_conv2d");
    for (case, p) in golden.cases() {
        let padding = match p["padding"].as_str().unwrap() {
            "same" => Padding::Same,
            "bottom_right" => Padding::BottomRight,
            other => panic!("{case}: padding {other}"),
        };
        let conv = Conv { stride: p["stride"].as_u64().unwrap() as usize, padding };
        let [x, w] = ["x", "w"].map(|name| golden.var(case, name));
        let [b, shift, residual] =
            ["b", "shift", "residual"].map(|name| golden.get(case, name).map(Tensor::var));
        let weight = Weight::from_tensor(&w);
        let y = ops::conv2d(
            &x,
            &weight,
            conv,
            ConvArgs { bias: b.as_ref(), shift: shift.as_ref(), residual: residual.as_ref() },
        );
        let optional = [("b", b.as_ref()), ("shift", shift.as_ref()), ("residual", residual.as_ref())];
        let optional = optional.into_iter().filter_map(|(name, leaf)| Some((name, leaf?)));
        let leaves: Vec<_> = [("x", &x), ("w", &w)].into_iter().chain(optional).collect();
        golden.check(case, &y, &leaves);
    }
}

/// Head sizes 8 to 512, more than one block of queries and keys, one key, large scores, masks.
#[test]
fn attention() {
    let golden = Golden::load("ops_attention");
    for (case, p) in golden.cases() {
        let heads = p["heads"].as_u64().unwrap() as usize;
        let bias = golden.get(case, "bias");
        let mask = match p["mask"].as_str().unwrap() {
            "none" => Mask::None,
            "causal" => Mask::Causal,
            "bias" => Mask::Bias(bias.as_ref().unwrap()),
            other => panic!("{case}: mask {other}"),
        };
        let [q, k, v] = ["q", "k", "v"].map(|name| golden.var(case, name));
        let y = ops::attention(&q, &k, &v, heads, mask);
        golden.check(case, &y, &[("q", &q), ("k", &k), ("v", &v)]);
    }
}

/// The causal mask is a bias of −∞ above the diagonal, forward and backward, over several blocks.
#[test]
fn causal_is_a_bias() {
    let (tokens, heads, d) = (300, 2, 8);
    let [q, k, v] = [1, 2, 3].map(|seed| common::noise(&[2, tokens, heads * d], seed).var());
    let above = |i: usize| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 };
    let bias = Tensor::from_vec((0..tokens * tokens).map(above).collect(), &[tokens, tokens]);
    let causal = ops::attention(&q, &k, &v, heads, Mask::Causal);
    let biased = ops::attention(&q, &k, &v, heads, Mask::Bias(&bias));
    common::close("y", &causal, &biased, 1e-5);
    let dy = common::noise(q.shape(), 4);
    let [causal, biased] = [causal, biased].map(|y| common::gradients_for(&y, dy.clone()));
    for leaf in [&q, &k, &v] {
        common::close("gradient", causal.get(leaf).unwrap(), biased.get(leaf).unwrap(), 1e-5);
    }
}

/// All of the above with every instruction set of this CPU, so that the portable fallback is tested too.
#[test]
fn every_isa() {
    common::rerun_for_every_isa("every_isa");
}
