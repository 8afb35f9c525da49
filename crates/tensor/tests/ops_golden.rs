//! Every op that is not a matrix product, forward and all gradients, against PyTorch in f64.

mod common;

use calotype_tensor::ops::{self, GroupNormArgs, WindowArgs};
use calotype_tensor::{Device, Tensor};
use common::Golden;
use serde_json::Value;

fn float(parameters: &Value, key: &str) -> f32 {
    parameters[key].as_f64().unwrap_or_else(|| panic!("{key}")) as f32
}

fn size(parameters: &Value, key: &str) -> usize {
    parameters[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize
}

/// Group norm, with and without SiLU, for one group to as many as channels, and a large offset.
#[test]
fn group_norm() {
    let golden = Golden::load("ops_group_norm");
    for (case, p) in golden.cases() {
        let [x, w, b] = ["x", "w", "b"].map(|name| golden.var(case, name));
        let silu = p["silu"].as_bool().unwrap();
        let y = ops::group_norm(
            &x,
            &w,
            &b,
            GroupNormArgs { groups: size(p, "groups"), eps: float(p, "eps"), silu },
        );
        golden.check(case, &y, &[("x", &x), ("w", &w), ("b", &b)]);
    }
}

/// Layer norm, with odd widths and a large offset.
#[test]
fn layer_norm() {
    let golden = Golden::load("ops_layer_norm");
    for (case, p) in golden.cases() {
        let [x, w, b] = ["x", "w", "b"].map(|name| golden.var(case, name));
        let y = ops::layer_norm(&x, &w, &b, float(p, "eps"));
        golden.check(case, &y, &[("x", &x), ("w", &w), ("b", &b)]);
    }
}

/// Activations, softmax, scale, sum and mean.
#[test]
fn unary() {
    let golden = Golden::load("ops_unary");
    for (case, p) in golden.cases() {
        let x = golden.var(case, "x");
        let y = match case.trim_end_matches("_3d").trim_end_matches("_large") {
            "silu" => ops::silu(&x),
            "gelu" => ops::gelu(&x),
            "quick_gelu" => ops::quick_gelu(&x),
            "relu" => ops::relu(&x),
            "leaky_relu" => ops::leaky_relu(&x, float(p, "slope")),
            "geglu" => ops::geglu(&x),
            "softmax" => ops::softmax(&x),
            "scale" => ops::scale(&x, float(p, "factor")),
            "mean" => ops::mean(&x),
            "sum" => ops::sum(&x),
            other => panic!("a case without a test: {other}"),
        };
        golden.check(case, &y, &[("x", &x)]);
    }
}

/// Attention in windows, shifted ones too, of products and of cosines, and a query that is zero.
#[test]
fn window_attention() {
    let golden = Golden::load("ops_window_attention");
    for (case, p) in golden.cases() {
        let [q, k, v, scale, bias] = ["q", "k", "v", "scale", "bias"].map(|name| golden.tensor(case, name));
        let args = WindowArgs {
            heads: size(p, "heads"),
            window: size(p, "window"),
            shift: size(p, "shift"),
            cosine: p["cosine"].as_bool().unwrap(),
            scale: &scale,
            bias: &bias,
            apart: float(p, "apart"),
        };
        let y = ops::window_attention(&q, &k, &v, args);
        common::close(case, &y, &golden.tensor(case, "y"), 1e-4);
    }
}

/// Sums, products and the loss of two or three tensors, and one tensor used three times.
#[test]
fn binary() {
    let golden = Golden::load("ops_binary");
    for (case, p) in golden.cases() {
        if case == "add_self" {
            let x = golden.var(case, "x");
            golden.check(case, &ops::add(&ops::mul(&x, &x), &x), &[("x", &x)]);
            continue;
        }
        let [a, b] = ["a", "b"].map(|name| golden.var(case, name));
        if case == "lincomb" {
            let c = golden.var(case, "c");
            let factors: Vec<f32> = (0..3).map(|i| p["factors"][i].as_f64().unwrap() as f32).collect();
            let y = ops::lincomb(&[(factors[0], &a), (factors[1], &b), (factors[2], &c)]);
            golden.check(case, &y, &[("a", &a), ("b", &b), ("c", &c)]);
            continue;
        }
        let y = match case {
            "add" => ops::add(&a, &b),
            "mul" => ops::mul(&a, &b),
            "mse" => ops::mse(&a, &b, None),
            other => panic!("a case without a test: {other}"),
        };
        golden.check(case, &y, &[("a", &a), ("b", &b)]);
    }
}

/// Ops that move elements.
#[test]
fn shape() {
    let golden = Golden::load("ops_shape");
    for (case, p) in golden.cases() {
        let leaves: Vec<(&str, Tensor)> = ["x", "table", "a", "b", "c"]
            .into_iter()
            .filter_map(|name| Some((name, golden.get(case, name)?.var())))
            .collect();
        let inputs: Vec<&Tensor> = leaves.iter().map(|(_, leaf)| leaf).collect();
        let y = match case {
            "embedding" => ops::embedding(inputs[0], &golden.ids(case, "ids")),
            "upsample" | "upsample_one" => ops::upsample_nearest2x(inputs[0]),
            "concat" | "concat3" => ops::concat(&inputs),
            "cat_batch" => ops::cat_batch(&inputs),
            "slice_batch" => ops::slice_batch(inputs[0], size(p, "start"), size(p, "len")),
            other => panic!("a case without a test: {other}"),
        };
        let leaves: Vec<_> = leaves.iter().map(|(name, leaf)| (*name, leaf)).collect();
        golden.check(case, &y, &leaves);
    }
}

/// Timestep embeddings equal diffusers' to the last bits of f32, also at t = 1000.
#[test]
fn timestep_embedding() {
    let golden = Golden::load("ops_timestep_embedding");
    for (case, p) in golden.cases() {
        let flip = p["flip_sin_to_cos"].as_bool().unwrap();
        let shift = float(p, "downscale_freq_shift");
        let t = golden.tensor(case, "t");
        let y = ops::timestep_embedding(t.f32s(), size(p, "dim"), flip, shift, Device::Cpu);
        common::close(case, &y, &golden.tensor(case, "y"), 1e-4);
    }
}

/// All of the above with every instruction set of this CPU, so that the portable fallback is tested too.
#[test]
fn every_isa() {
    common::rerun_for_every_isa("every_isa");
}
