use calotype_models::UNet;
use calotype_models::config::UNetConfig;
use calotype_models::nn::Activations;
use calotype_models::weights::{Network, Weights};
use calotype_tensor::{DType, Tensor, ops};

use crate::{BF16, F32, Golden, Param, assert_close, check_gradients, edited, folder, open, train};

fn load(name: &str, store: DType) -> UNet {
    UNet::load(&open(name, Network::UNet, store), &UNetConfig::read(&folder(name)).unwrap()).unwrap()
}

/// Runs one case of a golden file in a dtype.
fn run(
    unet: &UNet,
    golden: &Golden,
    case: &str,
    dtype: DType,
    observe: &mut dyn FnMut(&str, &Tensor),
) -> Tensor {
    let input = |name: &str| golden.get(&format!("{case}.{name}")).to_dtype(dtype);
    let time_ids = golden.get(&format!("{case}.time_ids"));
    let context = unet.prepare(&input("encoder_hidden_states"), &input("text_embeds"), time_ids);
    let t = golden.get(&format!("{case}.timestep")).to_vec();
    unet.forward_observed(&input("sample"), &t, &context, Activations::Keep, observe)
}

fn check_forward(name: &str, case: &str) {
    let (golden, unet) = (Golden::load(name), load(name, DType::F32));
    let mut seen = 0;
    let out = run(&unet, &golden, case, DType::F32, &mut |part, y| {
        seen += 1;
        let mid = |part: &str| golden.get(&format!("{case}.mid.{part}"));
        match part {
            "emb" => {
                let emb = ops::add(mid("time_embedding"), mid("add_embedding"));
                assert_close(part, y, &emb, F32);
            }
            part => assert_close(part, y, mid(part), F32),
        }
    });
    assert_eq!(seen + 1, golden.below(&format!("{case}.mid.")).len(), "every part was compared");
    assert_close("out", &out, golden.get(&format!("{case}.out")), F32);
}

/// SDXL base's layout, f16 weights: every block and the prediction equal diffusers'.
#[test]
fn base() {
    check_forward("unet_base", "even");
}

/// Latents of odd sizes come back to each skip's size on the way up.
#[test]
fn base_odd_size() {
    check_forward("unet_base", "odd");
}

/// The refiner's layout (four levels, five time ids), bf16 shards, fractional timesteps.
#[test]
fn refiner() {
    check_forward("unet_refiner", "even");
}

/// Odd sizes at several levels.
#[test]
fn refiner_odd_size() {
    check_forward("unet_refiner", "odd");
}

/// In bf16 the prediction stays near the f32 one, and has the sample's dtype.
#[test]
fn bf16() {
    for (name, case) in [("unet_base", "even"), ("unet_base", "odd"), ("unet_refiner", "even")] {
        let golden = Golden::load(name);
        let out = run(&load(name, DType::BF16), &golden, case, DType::BF16, &mut |_, _| {});
        assert_eq!(out.dtype(), DType::BF16);
        assert_close(name, &out, golden.get(&format!("{case}.out")), BF16);
    }
}

/// Weights kept as the file's f16 or bf16 give what the same weights widened to f32 give.
#[test]
fn narrow_storage() {
    for (name, store) in [("unet_base", DType::F16), ("unet_refiner", DType::BF16)] {
        let golden = Golden::load(name);
        let out = run(&load(name, store), &golden, "even", DType::F32, &mut |_, _| {});
        assert_close(name, &out, golden.get("even.out"), F32);
    }
}

/// An image is predicted the same alone as in a batch: bit for bit, or a picture would depend on its neighbours.
#[test]
fn batch_does_not_matter() {
    let (golden, unet) = (Golden::load("unet_base"), load("unet_base", DType::F32));
    let both = run(&unet, &golden, "even", DType::F32, &mut |_, _| {});
    let t = golden.get("even.timestep").to_vec();
    for i in 0..2 {
        let one = |name: &str| ops::slice_batch(golden.get(&format!("even.{name}")), i, 1);
        let context = unet.prepare(&one("encoder_hidden_states"), &one("text_embeds"), &one("time_ids"));
        let out = unet.forward(&one("sample"), &t[i..i + 1], &context);
        assert_eq!(out.to_vec(), ops::slice_batch(&both, i, 1).to_vec(), "image {i}");
    }
}

/// One timestep for the whole batch is that timestep for each image.
#[test]
fn one_timestep_for_all() {
    let (golden, unet) = (Golden::load("unet_base"), load("unet_base", DType::F32));
    let input = |name: &str| golden.get(&format!("even.{name}"));
    let context = unet.prepare(input("encoder_hidden_states"), input("text_embeds"), input("time_ids"));
    let one = unet.forward(input("sample"), &[37.0], &context);
    let each = unet.forward(input("sample"), &[37.0, 37.0], &context);
    assert_eq!(one.to_vec(), each.to_vec());
}

/// The epsilons are diffusers', which differ by layer: too little to show in the goldens, not in flat images.
#[test]
fn epsilons() {
    let config = UNetConfig { norm_eps: 1e-3, ..UNetConfig::read(&folder("unet_base")).unwrap() };
    let unet = UNet::load(&open("unet_base", Network::UNet, DType::F32), &config).unwrap();
    let transformer = &unet.mid_block.attentions[0];
    assert_eq!(transformer.norm.eps, 1e-6);
    assert_eq!(transformer.transformer_blocks[0].norm2.eps, 1e-5);
    assert_eq!(unet.down_blocks[0].resnets[0].norm1.eps, 1e-3);
    assert_eq!(unet.up_blocks[0].resnets[0].norm2.eps, 1e-3);
    assert_eq!(unet.conv_norm_out.eps, 1e-3);
}

/// The parameter of a checkpoint key, for those keys that the golden files have gradients of.
fn param<'a>(unet: &'a UNet, key: &str) -> Param<'a> {
    use Param::{Tensor, Weight};
    match key {
        "conv_in.weight" => Weight(&unet.conv_in.weight),
        "conv_out.bias" => Tensor(&unet.conv_out.bias),
        "time_embedding.linear_1.weight" => Weight(&unet.time_embedding.linear_1.weight),
        "add_embedding.linear_2.bias" => Tensor(unet.add_embedding.linear_2.bias.as_ref().unwrap()),
        "down_blocks.0.resnets.1.time_emb_proj.weight" => {
            Weight(&unet.down_blocks[0].resnets[1].time_emb_proj.as_ref().unwrap().weight)
        }
        "down_blocks.0.downsamplers.0.conv.bias" => {
            Tensor(&unet.down_blocks[0].downsampler.as_ref().unwrap().conv.bias)
        }
        "down_blocks.1.attentions.0.norm.weight" => Tensor(&unet.down_blocks[1].attentions[0].norm.weight),
        "down_blocks.1.attentions.1.proj_in.weight" => {
            Weight(&unet.down_blocks[1].attentions[1].proj_in.weight)
        }
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight" => {
            Weight(&unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q.weight)
        }
        "down_blocks.1.attentions.1.transformer_blocks.1.attn1.to_v.weight" => {
            Weight(&unet.down_blocks[1].attentions[1].transformer_blocks[1].attn1.to_v.weight)
        }
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.weight" => {
            Weight(&unet.down_blocks[1].attentions[0].transformer_blocks[1].attn2.to_k.weight)
        }
        "mid_block.attentions.0.transformer_blocks.1.ff.net.0.proj.weight" => {
            Weight(&unet.mid_block.attentions[0].transformer_blocks[1].ff.proj.weight)
        }
        "mid_block.attentions.0.transformer_blocks.0.norm2.bias" => {
            Tensor(&unet.mid_block.attentions[0].transformer_blocks[0].norm2.bias)
        }
        "up_blocks.0.attentions.2.transformer_blocks.0.attn2.to_out.0.weight" => {
            Weight(&unet.up_blocks[0].attentions[2].transformer_blocks[0].attn2.to_out.weight)
        }
        "up_blocks.0.resnets.2.conv_shortcut.weight" => {
            Weight(&unet.up_blocks[0].resnets[2].conv_shortcut.as_ref().unwrap().weight)
        }
        "up_blocks.1.resnets.0.norm1.weight" => Tensor(&unet.up_blocks[1].resnets[0].norm1.weight),
        "up_blocks.0.upsamplers.0.conv.bias" => {
            Tensor(&unet.up_blocks[0].upsampler.as_ref().unwrap().conv.bias)
        }
        "up_blocks.3.resnets.2.conv2.bias" => Tensor(&unet.up_blocks[3].resnets[2].conv2.bias),
        other => panic!("the test has no place for {other}"),
    }
}

/// With only the inputs requiring gradients: the frozen weights' path, as LoRA and textual inversion use it.
fn check_input_gradients(name: &str, case: &str) {
    let (golden, unet) = (Golden::load(name), load(name, DType::F32));
    let leaf = |name: &str| golden.get(&format!("{case}.{name}")).clone().var();
    let (sample, states, embeds) = (leaf("sample"), leaf("encoder_hidden_states"), leaf("text_embeds"));
    let context = unet.prepare(&states, &embeds, golden.get(&format!("{case}.time_ids")));
    let t = golden.get(&format!("{case}.timestep")).to_vec();
    let out = unet.forward(&sample, &t, &context);
    let leaves = [
        (format!("{case}.dsample"), sample),
        (format!("{case}.dencoder_hidden_states"), states),
        (format!("{case}.dtext_embeds"), embeds),
    ];
    check_gradients(&[(&out, golden.get(&format!("{case}.dy")))], &leaves, &golden);
}

fn check_weight_gradients(name: &str, case: &str) {
    let (golden, unet) = (Golden::load(name), load(name, DType::F32));
    let weights = open(name, Network::UNet, DType::F32);
    let prefix = format!("{case}.grad.");
    let trained = golden.below(&prefix).into_iter().map(|key| {
        let golden_name = format!("{prefix}{key}");
        let values = weights.tensor(&key, golden.get(&golden_name).shape()).unwrap();
        let leaf = train(param(&unet, &key), values);
        (golden_name, leaf)
    });
    let leaves: Vec<_> = trained.collect();
    assert!(!leaves.is_empty());
    let out = run(&unet, &golden, case, DType::F32, &mut |_, _| {});
    check_gradients(&[(&out, golden.get(&format!("{case}.dy")))], &leaves, &golden);
}

/// Gradients reach sample, text states and pooled text as in PyTorch.
#[test]
fn gradients_of_inputs() {
    for name in ["unet_base", "unet_refiner"] {
        check_input_gradients(name, "even");
        check_input_gradients(name, "odd");
    }
}

/// Gradients reach every kind of layer's parameters as in PyTorch.
#[test]
fn gradients_of_weights() {
    for name in ["unet_base", "unet_refiner"] {
        check_weight_gradients(name, "even");
        check_weight_gradients(name, "odd");
    }
}

/// Checkpoints whose transformers project with 1×1 convolutions give the same prediction.
#[test]
fn convolutions_as_projections() {
    let copy = edited("unet_base", "unet_conv_projection", |key, shape| {
        if key.ends_with("proj_in.weight") || key.ends_with("proj_out.weight") {
            shape.extend([1, 1]);
        }
        Some(key.into())
    });
    let config =
        UNetConfig { use_linear_projection: false, ..UNetConfig::read(&folder("unet_base")).unwrap() };
    let weights = Weights::open(&copy, Network::UNet, None, Some(DType::F32)).unwrap();
    let (golden, unet) = (Golden::load("unet_base"), UNet::load(&weights, &config).unwrap());
    assert_close(
        "out",
        &run(&unet, &golden, "even", DType::F32, &mut |_, _| {}),
        golden.get("even.out"),
        F32,
    );
}

/// A missing, surplus or misshapen tensor stops the loading with an error that names it.
#[test]
fn errors_name_the_tensor() {
    let config = UNetConfig::read(&folder("unet_base")).unwrap();
    let error = |copy: &str, edit: fn(&str, &mut Vec<usize>) -> Option<String>| {
        let weights = Weights::open(&edited("unet_base", copy, edit), Network::UNet, None, None).unwrap();
        UNet::load(&weights, &config).err().expect("it does not fit").to_string()
    };
    let missing =
        error("unet_missing", |key, _| (key != "mid_block.resnets.1.norm2.bias").then(|| key.into()));
    assert!(missing.contains("mid_block.resnets.1.norm2.bias") && missing.contains("(24,)"), "{missing}");
    let surplus = error("unet_surplus", |key, _| {
        Some(if key == "conv_out.bias" { "conv_out.scale".into() } else { key.into() })
    });
    assert!(surplus.contains("conv_out.bias"), "{surplus}");
    let misshapen = error("unet_misshapen", |key, shape| {
        if key == "conv_in.weight" {
            shape.reverse();
        }
        Some(key.into())
    });
    assert!(misshapen.contains("conv_in.weight: expected (16, 4, 3, 3), found (3, 3, 4, 16)"), "{misshapen}");
}
