//! Taking tensors from safetensors files: every layout, dtype and key name that is accepted, and what is refused.

#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;

use std::path::Path;

use calotype_models::weights::{Network, SharedWeights, Weights};
use calotype_tensor::DType;
use calotype_tensor::ops::{self, LinearArgs};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::json;
use temp::{Temp, golden};

const UNET: &str = "diffusion_pytorch_model.safetensors";

/// A safetensors file of (key, shape): values count up from 0 in each tensor, exact in every dtype here.
fn file(dtype: Dtype, tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape)| {
            let values = 0..shape.iter().product::<usize>();
            values
                .flat_map(|i| match dtype {
                    Dtype::F32 => (i as f32).to_le_bytes().to_vec(),
                    Dtype::F16 => f16::from_f32(i as f32).to_le_bytes().to_vec(),
                    Dtype::BF16 => bf16::from_f32(i as f32).to_le_bytes().to_vec(),
                    _ => (i as i64).to_le_bytes().to_vec(),
                })
                .collect()
        })
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((key, shape), bytes)| (*key, TensorView::new(dtype, shape.to_vec(), bytes).unwrap()));
    serialize(views, None).unwrap()
}

fn open(dir: &Path, layout: Network) -> Result<Weights, String> {
    Weights::open(dir, layout, None, None).map_err(|e| e.to_string())
}

fn unet(bytes: impl AsRef<[u8]>) -> (Temp, Result<Weights, String>) {
    let dir = Temp::new();
    dir.write(UNET, bytes);
    let weights = open(dir.path(), Network::UNet);
    (dir, weights)
}

fn counting(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

/// Each element type of a file becomes the same f32 values, also where the data is not aligned.
#[test]
fn every_dtype_reads_the_same() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let (_dir, weights) = unet(file(dtype, &[("a.b.weight", &[3, 5]), ("long", &[200])]));
        let weights = weights.unwrap();
        let tensor = weights.sub("a").sub("b").tensor("weight", &[3, 5]).unwrap();
        assert_eq!((tensor.shape(), tensor.f32s()), (&[3, 5][..], &counting(15)[..]), "{dtype:?}");
        assert_eq!(weights.tensor("long", &[200]).unwrap().f32s(), counting(200), "{dtype:?}");
        weights.finish().unwrap();
    }
}

/// Values survive the pieces that conversion works in.
#[test]
fn a_long_tensor_converts_whole() {
    let n = 5000;
    let bytes: Vec<u8> = (0..n).flat_map(|i| f16::from_f32((i % 2048) as f32).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F16, vec![n], &bytes).unwrap();
    let (_dir, weights) = unet(serialize([("x", view)], None).unwrap());
    let expected: Vec<f32> = (0..n).map(|i| (i % 2048) as f32).collect();
    assert_eq!(weights.unwrap().tensor("x", &[n]).unwrap().f32s(), expected);
}

/// Linear and convolution weights come packed, with their bias, and give the layer's result in each storage type.
#[test]
fn layers_are_packed_and_multiply() {
    for store in [None, Some(DType::F32), Some(DType::BF16), Some(DType::F16)] {
        let dir = Temp::new();
        let tensors: [(&str, &[usize]); 5] = [
            ("l.weight", &[2, 3]),
            ("l.bias", &[2]),
            ("n.weight", &[2, 3]),
            ("c.weight", &[2, 3, 1, 1]),
            ("c.bias", &[2]),
        ];
        dir.write(UNET, file(Dtype::F16, &tensors));
        let weights = Weights::open(dir.path(), Network::UNet, None, store).unwrap();
        let x = calotype_tensor::Tensor::from_vec(vec![1.0, 10.0, 100.0], &[1, 3]);
        let (w, bias) = weights.linear("l", 2, 3, true).unwrap();
        let y = ops::linear(
            &x,
            &w.get(),
            LinearArgs { bias: bias.map(|b| b.get()).as_ref(), ..LinearArgs::default() },
        );
        assert_eq!(y.f32s(), [210.0, 544.0], "{store:?}");
        let (w, none) = weights.linear("n", 2, 3, false).unwrap();
        assert!(none.is_none());
        assert_eq!(ops::linear(&x, &w.get(), LinearArgs::default()).f32s(), [210.0, 543.0]);
        let (w, bias) = weights.conv("c", 2, 3, 1).unwrap();
        assert_eq!(
            ops::linear(&x, &w.get(), LinearArgs { bias: Some(&bias.get()), ..LinearArgs::default() }).f32s(),
            [210.0, 544.0]
        );
        weights.finish().unwrap();
    }
}

/// The house's form of an error: file, key, expected, found.
#[test]
fn a_misshapen_tensor_names_file_key_expected_found() {
    let (dir, weights) = unet(file(Dtype::F32, &[("down_blocks.1.to_q.weight", &[640, 320]), ("b", &[4])]));
    let weights = weights.unwrap();
    let error = weights.sub("down_blocks").sub(1).linear("to_q", 640, 640, false).err().unwrap();
    let path = dir.path().join(UNET);
    let expected =
        format!("{}: down_blocks.1.to_q.weight: expected (640, 640), found (640, 320)", path.display());
    assert_eq!(error.to_string(), expected);
    let error = weights.tensor("b", &[2, 2]).err().unwrap();
    assert_eq!(error.to_string(), format!("{}: b: expected (2, 2), found (4,)", path.display()));
    let error = weights.sub("x").tensor("bias", &[7]).err().unwrap();
    assert_eq!(error.to_string(), format!("{}: x.bias: missing, expected (7,)", path.display()));
}

/// Integers (and every other type) are refused by name.
#[test]
fn an_integer_tensor_is_refused() {
    let (_dir, weights) = unet(file(Dtype::I64, &[("x", &[2])]));
    let error = weights.unwrap().tensor("x", &[2]).err().unwrap().to_string();
    assert!(error.ends_with("x: expected f32, f16, bf16, f8_e4m3 or f8_e5m2, found I64"), "{error}");
}

/// What no module took is an error, unless that part was skipped on purpose.
#[test]
fn surplus_tensors_are_an_error() {
    let names = ["a.x", "b.w", "b.x", "b.y", "b.z"];
    let tensors: Vec<(&str, &[usize])> = names.iter().map(|&n| (n, &[1][..])).collect();
    let (_dir, weights) = unet(file(Dtype::F32, &tensors));
    let weights = weights.unwrap();
    weights.tensor("a.x", &[1]).unwrap();
    weights.sub("a").finish().unwrap();
    let error = weights.finish().unwrap_err().to_string();
    assert!(error.ends_with(": b.w, b.x, b.y: surplus, expected no such tensor (4 in all)"), "{error}");
    weights.sub("b").skip();
    weights.finish().unwrap();
}

/// A prefix is whole names: `up_blocks.1` is not `up_blocks.10`.
#[test]
fn prefixes_end_at_a_dot() {
    let (_dir, weights) = unet(file(Dtype::F32, &[("up.1.x", &[1]), ("up.10.x", &[2])]));
    let weights = weights.unwrap();
    weights.sub("up").sub(1).skip();
    assert!(weights.finish().unwrap_err().to_string().contains("up.10.x: surplus"));
    assert_eq!(weights.sub("up").sub(10).tensor("x", &[2]).unwrap().f32s(), [0.0, 1.0]);
}

/// Plain files come first, a variant where it is asked for or alone.
#[test]
fn variants_are_found_in_order() {
    let dir = Temp::new();
    let sized = |n: usize| file(Dtype::F16, &[("x", &[n])]);
    let size = |variant| {
        let weights =
            Weights::open(dir.path(), Network::ClipText, variant, None).map_err(|e| e.to_string())?;
        let found = (1..5).find(|&n| weights.sub("text_model").tensor("x", &[n]).is_ok());
        Ok::<_, String>(found.unwrap())
    };
    assert!(
        size(None)
            .unwrap_err()
            .ends_with("no weights: expected model.safetensors or pytorch_model.bin, found an empty folder")
    );
    dir.write("pytorch_model.bin", "");
    assert!(size(None).unwrap_err().ends_with("pytorch_model.bin: not a safetensors file: an empty file"));
    dir.write("model.bf16.safetensors", sized(1));
    assert_eq!(size(None), Ok(1));
    dir.write("model.fp16.safetensors", sized(2));
    assert_eq!(size(None), Ok(2));
    assert_eq!(size(Some("bf16")), Ok(1));
    dir.write("model.safetensors", sized(3));
    assert_eq!((size(None), size(Some("fp16")), size(Some("other"))), (Ok(3), Ok(2), Ok(3)));
    dir.write("model.safetensors.index.json", json!({"weight_map": {"x": "shard.safetensors"}}).to_string());
    dir.write("shard.safetensors", sized(4));
    assert_eq!((size(None), size(Some("fp16"))), (Ok(4), Ok(2)));
}

/// Shards: each key from the file that the index names.
#[test]
fn shards_are_one_checkpoint() {
    let dir = Temp::new();
    let index = |map: serde_json::Value| {
        dir.write(&format!("{UNET}.index.json"), json!({"metadata": {}, "weight_map": map}).to_string());
        open(dir.path(), Network::UNet)
    };
    dir.write("one.safetensors", file(Dtype::F32, &[("a", &[1]), ("both", &[2])]));
    dir.write("two.safetensors", file(Dtype::F16, &[("b", &[3]), ("both", &[4])]));
    let (one, two) = ("one.safetensors", "two.safetensors");
    let weights = index(json!({"a": one, "b": two, "both": one})).unwrap();
    weights.tensor("a", &[1]).unwrap();
    assert_eq!(weights.tensor("b", &[3]).unwrap().f32s(), [0.0, 1.0, 2.0]);
    weights.tensor("both", &[2]).unwrap();
    weights.finish().unwrap();
    let error = weights.tensor("c", &[1]).err().unwrap().to_string();
    assert!(error.contains(".index.json: c: missing"), "{error}");

    let lacking = index(json!({"a": one, "b": two, "both": two, "c": two})).err().unwrap();
    assert!(lacking.ends_with("two.safetensors: c: missing"), "{lacking}");
    let absent = index(json!({"a": "three.safetensors"})).err().unwrap();
    assert!(absent.contains("three.safetensors: No such file"), "{absent}");
    let unlisted = index(json!({"a": one, "both": one})).unwrap();
    unlisted.sub("a").skip();
    assert!(unlisted.finish().is_err(), "a tensor of a shard that the index does not list");
}

/// A shard's name comes from a file that someone else wrote: it must stay inside of the folder.
#[test]
fn shard_names_cannot_leave_the_folder() {
    let outside = Temp::new();
    let target = outside.write("x.safetensors", file(Dtype::F32, &[("a", &[1])]));
    let parent = format!("../{}/x.safetensors", outside.path().file_name().unwrap().to_str().unwrap());
    let dir = Temp::new();
    dir.write("sub/x.safetensors", file(Dtype::F32, &[("a", &[1])]));
    for name in [
        target.to_str().unwrap(),
        &parent,
        "sub/x.safetensors",
        "./x.safetensors",
        "..",
        "",
        "x",
        "a\\x.safetensors",
    ] {
        dir.write(&format!("{UNET}.index.json"), json!({"weight_map": {"a": name}}).to_string());
        let error = open(dir.path(), Network::UNet).err().unwrap_or_else(|| panic!("{name} was opened"));
        assert!(
            error.contains("index.json: expected the name of a .safetensors or .bin file beside it"),
            "{error}"
        );
    }
}

/// Keys with and without `text_model.` are one model's, and the constant that old versions saved is no surplus.
#[test]
fn clip_keys_with_and_without_prefix() {
    let with: [(&str, &[usize]); 3] = [
        ("text_model.final_layer_norm.weight", &[4]),
        ("text_model.embeddings.position_ids", &[1]),
        ("text_projection.weight", &[2, 2]),
    ];
    let without: [(&str, &[usize]); 3] = [
        ("final_layer_norm.weight", &[4]),
        ("embeddings.position_ids", &[1]),
        ("text_projection.weight", &[2, 2]),
    ];
    for tensors in [with, without] {
        let dir = Temp::new();
        dir.write("model.safetensors", file(Dtype::F32, &tensors));
        let weights = open(dir.path(), Network::ClipText).unwrap();
        weights.sub("text_model").sub("final_layer_norm").tensor("weight", &[4]).unwrap();
        weights.linear("text_projection", 2, 2, false).unwrap();
        weights.finish().unwrap();
    }
}

/// Protects: what tools leave of a whole CLIP model is no surplus; a tensor that a network should have had still is.
#[test]
fn leftovers_of_a_clip_model_are_passed_over() {
    for prefix in ["text_model.", ""] {
        let keys = [
            format!("{prefix}final_layer_norm.weight"),
            format!("{prefix}embeddings.position_ids"),
            "text_projection.weight".into(),
            "logit_scale".into(),
            "visual_projection.weight".into(),
            "vision_model.post_layernorm.weight".into(),
        ];
        let tensors = |more: &'static str| -> Vec<u8> {
            let keys = keys.iter().map(String::as_str).chain((!more.is_empty()).then_some(more));
            file(Dtype::F32, &keys.map(|key| (key, &[4][..])).collect::<Vec<_>>())
        };
        let dir = Temp::new();
        for (more, ok) in [("", true), ("encoder.layers.99.mlp.fc1.weight", false)] {
            dir.write("model.safetensors", tensors(more));
            let weights = open(dir.path(), Network::ClipText).unwrap();
            weights.sub("text_model").sub("final_layer_norm").tensor("weight", &[4]).unwrap();
            assert_eq!(weights.finish().is_ok(), ok, "{prefix:?} {more:?}");
        }
    }
}

/// An old VAE's attention: other names, and 1×1 convolutions. Beside today's names they are a surplus.
#[test]
fn old_vae_attention_is_read() {
    let attention = "decoder.mid_block.attentions.0";
    let names = ["query", "key", "value", "proj_attn"];
    let keys = names.map(|name| [format!("{attention}.{name}.weight"), format!("{attention}.{name}.bias")]);
    let shaped = |last: usize| {
        keys.iter().enumerate().flat_map(move |(i, [weight, bias])| {
            let shape: &[usize] = if i == last { &[2, 2] } else { &[2, 2, 1, 1] };
            [(weight.as_str(), shape), (bias.as_str(), &[2])]
        })
    };
    let dir = Temp::new();
    dir.write(UNET, file(Dtype::F32, &shaped(3).collect::<Vec<_>>()));
    let weights = open(dir.path(), Network::Vae).unwrap();
    for name in ["to_q", "to_k", "to_v", "to_out.0"] {
        weights.sub(attention).linear(name, 2, 2, true).unwrap();
    }
    let error = weights.sub(attention).linear("to_q", 4, 4, true).err().unwrap().to_string();
    assert!(error.contains("query.weight: expected (4, 4), found (2, 2)"), "{error}");
    weights.finish().unwrap();

    let both: [(&str, &[usize]); 2] = [
        ("decoder.mid_block.attentions.0.query.bias", &[2]),
        ("decoder.mid_block.attentions.0.to_q.bias", &[3]),
    ];
    dir.write(UNET, file(Dtype::F32, &both));
    let weights = open(dir.path(), Network::Vae).unwrap();
    weights.tensor("decoder.mid_block.attentions.0.to_q.bias", &[3]).unwrap();
    assert!(weights.finish().unwrap_err().to_string().contains("query.bias: surplus"));
    assert!(
        open(dir.path(), Network::UNet)
            .unwrap()
            .tensor("decoder.mid_block.attentions.0.query.bias", &[2])
            .is_ok()
    );
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A file cut at any byte is an error that names it, and never a panic.
#[test]
fn a_truncated_file_is_refused() {
    let whole = file(Dtype::F32, &[("a", &[2, 3]), ("b", &[4])]);
    for length in 0..whole.len() {
        let (_dir, weights) = unet(&whole[..length]);
        let error = weights.err().unwrap_or_else(|| panic!("{length} bytes were accepted"));
        assert!(error.contains(&format!("{UNET}: not a safetensors file: ")), "{length} bytes: {error}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(unet(longer).1.is_err(), "bytes that no tensor covers");
}

/// Headers that lie about sizes are errors that name the file.
#[test]
fn a_lying_header_is_refused() {
    let entry = |shape: &str, from: u64, to: u64| {
        format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}}}")
    };
    // Sums of these sizes overflow inside of the parser.
    let huge: Vec<String> = (0..8u64)
        .map(|i| {
            let size = (1u64 << 61) - 1;
            format!(
                "\"{i}\":{{\"dtype\":\"U8\",\"shape\":[{size}],\"data_offsets\":[{},{}]}}",
                i.wrapping_mul(size),
                i.wrapping_mul(size).wrapping_add(size)
            )
        })
        .collect();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("a length beyond the file", 1000u64.to_le_bytes().to_vec()),
        ("the greatest length", u64::MAX.to_le_bytes().to_vec()),
        ("a length that overflows", (u64::MAX - 7).to_le_bytes().to_vec()),
        ("a length beyond what headers have", [&200_000_000u64.to_le_bytes()[..], b"{}"].concat()),
        ("no JSON", with_header("not json", &[])),
        ("no object", with_header("[]", &[])),
        ("no UTF-8", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
        ("an end beyond the file", with_header(&entry("[4]", 0, 16), &[0; 8])),
        ("an end before the start", with_header(&entry("[2]", 8, 0), &[0; 8])),
        ("a shape of another size", with_header(&entry("[3]", 0, 8), &[0; 8])),
        ("a shape that overflows", with_header(&entry("[4294967296,4294967296,4]", 0, 8), &[0; 8])),
        ("a shape below zero", with_header(&entry("[-2]", 0, 8), &[0; 8])),
        ("offsets that overflow", with_header(&entry("[2]", u64::MAX - 7, u64::MAX), &[0; 8])),
        ("sums that overflow", with_header(&format!("{{{}}}", huge.join(",")), &[0; 8])),
        ("a gap", with_header(&entry("[1]", 4, 8), &[0; 8])),
        (
            "an unknown dtype",
            with_header("{\"a\":{\"dtype\":\"F99\",\"shape\":[2],\"data_offsets\":[0,8]}}", &[0; 8]),
        ),
        ("deep nesting", with_header(&"[".repeat(100_000), &[])),
    ] {
        let error = unet(bytes).1.err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert!(error.contains(&format!("{UNET}: not a safetensors file: ")), "{what}: {error}");
        assert!(error.len() < 1000 && !error.contains('\n'), "{what}: one short line: {error}");
    }
}

/// Files as diffusers and transformers write them: single f16 and f32, sharded bf16, with and without prefix.
#[test]
fn reference_folders_open() {
    for (name, layout, key, shape) in [
        ("unet_base", Network::UNet, "conv_in.bias", &[16][..]),
        ("unet_refiner", Network::UNet, "conv_in.bias", &[8]),
        ("vae", Network::Vae, "decoder.conv_out.bias", &[3]),
    ] {
        let weights = open(&golden().join("models").join(name), layout).unwrap();
        weights.tensor(key, shape).unwrap();
        assert!(weights.finish().is_err(), "{name}: the rest is still there");
    }
    let table = |name: &str| {
        let weights = open(&golden().join("models").join(name), Network::ClipText).unwrap();
        weights.tensor("text_model.final_layer_norm.weight", &[32]).unwrap().to_vec()
    };
    assert_eq!(table("text_encoder"), table("text_encoder_prefixed"));
}

/// Protects memory: networks with the same shared weights have a layer's weight once. It goes when no network has it, unless it is needed.
#[test]
fn networks_share_weights() {
    let (_dir, weights) = unet(file(Dtype::F16, &[("a.weight", &[4, 3]), ("b.weight", &[2, 3])]));
    let shared = SharedWeights::default();
    let weights = weights.unwrap().with_shared(shared.clone());
    let take = |name: &str, out: usize| weights.linear(name, out, 3, false).unwrap().0;
    let (first, second, other) = (take("a", 4), take("a", 4), take("b", 2));
    assert!(shared.has("a.weight") && shared.has("b.weight") && !shared.has("c.weight"));
    assert_eq!(shared.bytes(), 2 * (4 + 2) * 3);
    assert!(weights.linear("a", 3, 3, false).is_err(), "of another shape");
    drop((first, other));
    shared.trim(|_| false);
    assert!(shared.has("a.weight") && !shared.has("b.weight"));
    drop(second);
    shared.trim(|key| key == "a.weight");
    assert!(shared.has("a.weight"));
    shared.trim(|_| false);
    assert_eq!(shared.bytes(), 0);
}
