//! Trained weights as other programs leave them: the same LoRA by every program's names, in every number format, in folders and
//! in tars that were packed again; what a prompt asks of them; and what is refused, with what it is.

#[path = "../../sdxl/tests/plan/mod.rs"]
mod plan;
#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;
mod train_common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_models::ModelFolder;
use calotype_sdxl::PredictPlan;
use calotype_sdxl::adapters::{LoraPair, Modules, TrainedWeights};
use calotype_sdxl::pipeline::{EmptyNegative, Options, Pipeline, Rng};
use calotype_tensor::{DType, Tensor};
use calotype_train::checkpoint::save;
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use temp::{Temp, golden};

/// A tensor of a file: key, shape, bytes.
type Item = (String, Dtype, Vec<usize>, Vec<u8>);

fn item(key: impl Into<String>, tensor: &Tensor) -> Item {
    let bytes = tensor.f32s().iter().flat_map(|x| x.to_le_bytes()).collect();
    (key.into(), Dtype::F32, tensor.shape().to_vec(), bytes)
}

fn file(items: &[Item]) -> Vec<u8> {
    let view = |(key, dtype, shape, bytes): &'_ Item| -> (String, TensorView<'static>) {
        let bytes: &'static [u8] = Box::leak(bytes.clone().into_boxed_slice());
        (key.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor"))
    };
    safetensors::serialize(items.iter().map(view), None).expect("a file")
}

fn modules() -> Modules {
    let folder = ModelFolder::open(&golden().join("pipeline")).expect("the tiny model");
    Modules::of(&folder, &folder.configs().expect("its configs")).expect("its layers")
}

fn read(path: &Path) -> TrainedWeights {
    TrainedWeights::read(path, Some(&modules())).expect("trained weights")
}

fn refusal(path: &Path) -> String {
    let error = TrainedWeights::read(path, Some(&modules())).expect_err("refused").to_string();
    assert!(!error.contains('\n') && error.len() < 600, "{error}");
    error
}

/// Values that a seed gives.
fn values(seed: usize, shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let value = |i: usize| ((i * 37 + seed * 101) % 97) as f32 / 97.0 - 0.5;
    Tensor::from_vec((0..count).map(value).collect(), shape)
}

/// Layers of the tiny model's UNet, and what SDXL's original numbering calls them.
const LAYERS: [(&str, &str); 3] = [
    (
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "input_blocks.3.1.transformer_blocks.0.attn1.to_q",
    ),
    (
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "middle_block.1.transformer_blocks.0.attn1.to_out.0",
    ),
    (
        "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_v",
        "output_blocks.1.1.transformer_blocks.0.attn1.to_v",
    ),
];

/// LoRA of rank 2 for the layers, of this alpha.
fn lora(alpha: f32) -> TrainedWeights {
    let pair = |(i, (path, _)): (usize, &(&str, &str))| {
        let pair = LoraPair::new(values(i, &[2, 16]), values(i + 9, &[16, 2]));
        (path.to_string(), LoraPair { alpha, ..pair })
    };
    TrainedWeights { lora: LAYERS.iter().enumerate().map(pair).collect(), ..Default::default() }
}

/// The same in a file, each layer's parts named by a function of its path and its original name.
fn named(weights: &TrainedWeights, name: impl Fn(&str, &str) -> [String; 2]) -> Vec<Item> {
    let parts = LAYERS.iter().flat_map(|(path, original)| {
        let (pair, [down, up]) = (&weights.lora[*path], name(path, original));
        [item(down, &pair.down), item(up, &pair.up)]
    });
    parts.collect()
}

fn peft(weights: &TrainedWeights) -> Vec<Item> {
    named(weights, |path, _| ["A", "B"].map(|part| format!("base_model.model.{path}.lora_{part}.weight")))
}

/// Keys of a layer's down and up weights, by its path and its original name.
type Name = Box<dyn Fn(&str, &str) -> [String; 2]>;

/// Protects: one LoRA is the same by the names of kohya, LyCORIS, OneTrainer, ComfyUI, diffusers of several ages, and PEFT.
#[test]
fn names_of_every_program() {
    let (here, want) = (Temp::new(), lora(2.0));
    fn flat(path: &str) -> String {
        path.replace('.', "_")
    }
    let layouts: [(&str, Name); 9] = [
        ("kohya", Box::new(|p, _| ["down", "up"].map(|x| format!("lora_unet_{}.lora_{x}.weight", flat(p))))),
        (
            "kohya's, SDXL's numbering",
            Box::new(|_, o| ["down", "up"].map(|x| format!("lora_unet_{}.lora_{x}.weight", flat(o)))),
        ),
        (
            "kohya's with diffusers' parts",
            Box::new(|p, _| ["down", "up"].map(|x| format!("lora_unet_{}.lora.{x}.weight", flat(p)))),
        ),
        ("LyCORIS", Box::new(|p, _| ["down", "up"].map(|x| format!("lycoris_{}.lora_{x}.weight", flat(p))))),
        ("OneTrainer", Box::new(|_, o| ["down", "up"].map(|x| format!("unet.{o}.lora_{x}.weight")))),
        ("ComfyUI", Box::new(|_, o| ["down", "up"].map(|x| format!("diffusion_model.{o}.lora_{x}.weight")))),
        ("PEFT", Box::new(|p, _| ["A", "B"].map(|x| format!("base_model.model.{p}.lora_{x}.weight")))),
        (
            "PEFT with the adapter's name",
            Box::new(|p, _| ["A", "B"].map(|x| format!("unet.{p}.lora_{x}.default.weight"))),
        ),
        (
            "diffusers' processors",
            Box::new(|p, _| {
                let (block, layer) = p.trim_end_matches(".0").rsplit_once('.').expect("a layer");
                ["down", "up"].map(|x| format!("unet.{block}.processor.{layer}_lora.{x}.weight"))
            }),
        ),
    ];
    for (program, name) in layouts {
        let path = here.write("x.safetensors", file(&named(&want, name)));
        assert_eq!(read(&path), want, "{program}");
    }
}

/// Protects: LoRA of every layer, which a training makes, is the same in each layout, whether the model is known or not, and in
/// a checkpoint. In kohya's layout layers have SDXL's original names, as other programs expect them.
#[test]
fn lora_of_every_layer() {
    let (here, mut trainer) = (Temp::new(), train_common::trainer("lora_all", train_common::F32));
    trainer.step().expect("a step");
    let want = trainer.trained_weights();
    assert_eq!((want.lora.len(), want.lora["conv_in"].down.shape()), (85, &[2, 4, 3, 3][..]));
    let mut tar = Vec::new();
    want.to_tar().expect("a tar").write(&mut tar).expect("written");
    let tar = here.write("trained_model.tar", tar);
    assert_eq!(read(&tar), want);
    let unknown = TrainedWeights::read(&tar, None).expect("read without the model");
    let file = |weights: &TrainedWeights, kohya: bool| {
        let file = if kohya { weights.to_kohya() } else { weights.to_diffusers() };
        let mut bytes = Vec::new();
        file.expect("a layout").write(&mut bytes).expect("written");
        bytes
    };
    let kohya = file(&want, true);
    assert_eq!(file(&unknown, true), kohya);
    let names = safetensors::SafeTensors::deserialize(&kohya).expect("a file");
    for (name, shape) in [
        ("lora_unet_input_blocks_0_0.lora_down.weight", vec![2, 4, 3, 3]),
        ("lora_unet_input_blocks_1_0_in_layers_2.lora_up.weight", vec![8, 2, 1, 1]),
        ("lora_unet_input_blocks_2_0_op.lora_down.weight", vec![2, 8, 3, 3]),
        ("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_out_0.lora_up.weight", vec![16, 2]),
        ("lora_unet_output_blocks_1_2_conv.lora_up.weight", vec![16, 2, 1, 1]),
        ("lora_unet_time_embed_0.lora_down.weight", vec![2, 8]),
        ("lora_unet_label_emb_0_0.alpha", vec![]),
        ("lora_unet_out_2.lora_up.weight", vec![4, 2, 1, 1]),
    ] {
        assert_eq!(names.tensor(name).expect(name).shape(), shape, "{name}");
    }
    assert_eq!(read(&here.write("kohya.safetensors", &kohya)), want);
    let diffusers = file(&want, false);
    assert_eq!(file(&unknown, false), diffusers);
    assert_eq!(read(&here.write("diffusers.safetensors", &diffusers)).lora, want.lora);
    let checkpoint = save(here.path(), &trainer, 1).expect("saved");
    assert_eq!(read(&checkpoint), want);
}

/// Protects: text encoders' LoRA by the same programs' prefixes.
#[test]
fn text_encoders_of_every_program() {
    let here = Temp::new();
    let layer = "text_model.encoder.layers.0.self_attn.q_proj";
    let flat = layer.replace('.', "_");
    for (prefixes, layer) in [
        (["lora_te1_", "lora_te2_"], flat.as_str()),
        (["text_encoder.", "text_encoder_2."], layer),
        (["clip_l.", "clip_g."], layer),
        (["text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer."], layer),
        (["text_encoder.", "text_encoder_2."], "encoder.layers.0.self_attn.to_q"),
    ] {
        let parts = prefixes.iter().zip([16, 24]).flat_map(|(prefix, width)| {
            [("down", [2, width]), ("up", [width, 2])].map(|(part, shape)| {
                item(format!("{prefix}{layer}.lora_{part}.weight"), &values(width, &shape))
            })
        });
        let found = read(&here.write("x.safetensors", file(&parts.collect::<Vec<_>>())));
        for (lora, width) in found.text_lora.iter().zip([16, 24]) {
            let pair = &lora["text_model.encoder.layers.0.self_attn.q_proj"];
            assert_eq!(pair.down.f32s(), values(width, &[2, width]).f32s(), "{prefixes:?}");
        }
    }
    let bare = file(&[item(format!("{layer}.lora_down.weight"), &values(1, &[2, 16]))]);
    assert!(refusal(&here.write("x.safetensors", bare)).contains("text_encoder_2. before it"));
}

/// Protects: weights in 64 and in 8 bits are their values in f32, also of both kinds in one file.
#[test]
fn every_number_format() {
    let (here, exact) = (Temp::new(), lora(2.0));
    let coded = |dtype, code: fn(f32) -> Vec<u8>| -> Vec<Item> {
        let items = peft(&exact).into_iter();
        let coded = items.map(|(key, _, shape, bytes)| {
            let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            (key, dtype, shape, values.flat_map(code).collect())
        });
        coded.collect()
    };
    let double = coded(Dtype::F64, |x| f64::from(x).to_le_bytes().to_vec());
    assert_eq!(read(&here.write("x", file(&double))), exact);
    // 1.5 in each of the two formats of 8 bits.
    let mixed: Vec<Item> = coded(Dtype::F8_E4M3, |_| vec![0x3c])
        .into_iter()
        .take(1)
        .chain(coded(Dtype::F8_E5M2, |_| vec![(f16::from_f32(1.5).to_bits() >> 8) as u8]).into_iter().skip(1))
        .collect();
    let found = read(&here.write("x", file(&mixed)));
    for pair in found.lora.values() {
        assert!(pair.down.f32s().iter().chain(pair.up.f32s()).all(|x| *x == 1.5), "{pair:?}");
    }
    let whole = coded(Dtype::I32, |_| vec![0; 4]);
    assert!(refusal(&here.write("x", file(&whole))).contains("expected floats"));
}

/// Protects: folders of PEFT (with the scale of its config), of diffusers, of a clone, and of a run.
#[test]
fn folders_of_other_programs() {
    let here = Temp::new();
    let at = |name: &str| here.path().join(name);
    let weights = file(&peft(&lora(2.0)));
    here.write("peft/adapter_model.safetensors", &weights);
    assert_eq!(read(&at("peft")), lora(2.0), "no config: scale 1");
    for (config, alpha) in [
        (json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": false }), 4.0),
        (json!({ "r": 8, "lora_alpha": 8, "rank_pattern": { "to_q": 2 } }), 8.0),
        (json!({ "r": 2, "lora_alpha": 4, "use_rslora": true }), 4.0 * 2f32.sqrt()),
    ] {
        here.write("peft/adapter_config.json", config.to_string());
        assert_eq!(read(&at("peft")), lora(alpha), "{config}");
    }
    for (config, says) in [
        (json!({ "peft_type": "IA3" }), "peft_type: expected LORA, LOHA or LOKR, found IA3"),
        (json!({ "use_qalora": true }), "use_qalora: not supported"),
        (json!([]), "expected a JSON object"),
    ] {
        here.write("peft/adapter_config.json", config.to_string());
        assert!(refusal(&at("peft")).contains(says), "{config}");
    }
    here.write("config/adapter_config.json", "{}");
    assert!(refusal(&at("config")).contains("adapter_config.json without adapter_model.safetensors"));
    here.write("diffusers/pytorch_lora_weights.safetensors", &weights);
    assert_eq!(read(&at("diffusers")), lora(2.0));
    here.write("clone/my lora.safetensors", &weights);
    here.write("clone/README.md", "about");
    assert_eq!(read(&at("clone")), lora(2.0), "the only safetensors file");
    here.write("clone/other.safetensors", &weights);
    assert!(refusal(&at("clone")).contains("found my lora.safetensors, other.safetensors: name one of them"));
    here.write("diffusers/lora.safetensors", &weights);
    assert!(refusal(&at("diffusers")).contains("has lora.safetensors and pytorch_lora_weights.safetensors"));

    let mut tar = Vec::new();
    lora(2.0).to_tar().expect("a tar").write(&mut tar).expect("written");
    here.write("run/checkpoints/step-000002/x", "");
    assert!(refusal(&at("run")).contains("checkpoints/step-000002 has the weights"));
    assert!(refusal(&at("run/checkpoints")).contains("several checkpoints: name one of them"));
    here.write("run/trained_model.tar", &tar);
    assert_eq!(read(&at("run")), lora(2.0), "a run's result");
    here.write("pickle/pytorch_lora_weights.bin", "");
    assert!(refusal(&at("pickle")).contains("pickled weights"));
    here.write("model/model_index.json", "{}");
    assert!(refusal(&at("model")).contains("--model"));
    here.write("empty/x.txt", "");
    assert!(refusal(&at("empty")).contains("no trained weights: expected lora.safetensors"));
}

/// Protects: a training's checkpoint is what it had learnt by then, LoRA and full fine-tune; a damaged one, and one of another
/// model, is refused.
#[test]
fn weights_of_a_checkpoint() {
    for case in ["lora_ti", "full_adafactor"] {
        let (run, mut trainer) = (Temp::new(), train_common::trainer(case, train_common::F32));
        trainer.step().expect("a step");
        let checkpoint = save(run.path(), &trainer, 1).expect("saved");
        let found = TrainedWeights::read(&checkpoint, None).expect("weights");
        assert!(found == trainer.trained_weights(), "{case}");
        assert!(found.new_tokens() == 2 && !found.tokens.is_empty());
        let state = checkpoint.join("state.safetensors");
        let mut bytes = std::fs::read(&state).expect("there");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&state, bytes).expect("written");
        let error = TrainedWeights::read(&checkpoint, None).expect_err("damaged").to_string();
        assert!(error.contains("state.safetensors: damaged"), "{error}");
        std::fs::remove_file(checkpoint.join("sums.json")).expect("removed");
        let error = TrainedWeights::read(&checkpoint, None).expect_err("cut").to_string();
        assert!(error.contains("no sums.json in it"), "{error}");
    }
}

/// A member's path and content; a folder has none.
type InTar<'a> = (&'a str, Option<&'a [u8]>);

fn tar(members: &[InTar]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if content.is_some() {
            tar::EntryType::Regular
        } else {
            tar::EntryType::Directory
        });
        header.set_size(content.map_or(0, |content| content.len() as u64));
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.unwrap_or_default()).expect("in memory");
    }
    tar.into_inner().expect("in memory")
}

/// Protects: a trained_model.tar that was unpacked and packed again, on a Mac or with its folder, in any order.
#[test]
fn tars_packed_again() {
    let (here, want) = (Temp::new(), lora(2.0));
    let (weights, words) = (file(&peft(&want)), br#"{"TOK": "red"}"#.as_slice());
    let lora = ("lora.safetensors", Some(weights.as_slice()));
    let inside = ("a b/lora.safetensors", Some(weights.as_slice()));
    let found = TrainedWeights { tokens: [("TOK".into(), "red".into())].into(), ..want };
    let cases: [Vec<InTar>; 3] = [
        vec![("special_params.json", Some(words)), lora],
        vec![
            ("._lora.safetensors", Some(&[0; 163])),
            lora,
            ("special_params.json", Some(words)),
            (".DS_Store", Some(&[1])),
        ],
        vec![
            ("a b", None),
            inside,
            ("a b/special_params.json", Some(words)),
            ("__MACOSX/a b/._lora.safetensors", Some(&[2])),
        ],
    ];
    for members in cases {
        assert_eq!(read(&here.write("x.tar", tar(&members))), found, "{members:?}");
    }
    let apart = [inside, ("special_params.json", Some(words))];
    assert!(refusal(&here.write("x.tar", tar(&apart))).contains("all members in one folder"));
    let litter = [(".DS_Store", Some([1].as_slice()))];
    assert!(refusal(&here.write("x.tar", tar(&litter))).contains("an empty tar"));
}

/// Protects: files that are no weights, or another model's, are refused with what they are; nothing waits for a pipe.
#[test]
fn what_else_people_give() {
    let here = Temp::new();
    let refused = |bytes: &[u8]| refusal(&here.write("x", bytes));
    assert!(refused(&file(&[])).contains("x: no LoRA, no embedding"), "metadata alone");
    for (bytes, says) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"[..], "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\x80\x02}q", "pickled"),
        (b"PK\x03\x04------", "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"", "empty"),
    ] {
        assert!(refused(bytes).contains(says), "{says}");
    }
    let flux = "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight";
    let first = "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight";
    for (key, looks) in [
        (flux, "to be for FLUX or a model built like it, not for SDXL"),
        (first, "to be for Stable Diffusion 1.x, not for SDXL"),
        ("first_stage_model.x", "like a whole model in one file, not like trained weights"),
    ] {
        let says = refused(&file(&[item(key, &values(0, &[2, 768]))]));
        assert!(says.contains(&format!("the file looks {looks}")), "{says}");
    }
    for (key, says) in [
        ("a.oft_diag", "OFT in this layout is not supported"),
        ("a.ia3_l", "(IA)³ is not supported"),
        ("a.vera_lambda_b", "VeRA is not supported"),
    ] {
        assert!(refused(&file(&[item(key, &values(0, &[2, 3]))])).contains(says), "{key}");
    }
    if cfg!(unix) {
        let line = refusal(Path::new("/dev/zero"));
        assert_eq!(line, "/dev/zero: expected a file, found a pipe or a device");
    }
}

/// Protects: a file of words may not take memory or time: no long words, no long texts, not too many, and no embedding
/// that has no room in a prompt.
#[test]
fn words_have_limits() {
    let here = Temp::new();
    let words = |params: serde_json::Value| {
        let text = params.to_string();
        here.write("x.tar", tar(&[("special_params.json", Some(text.as_bytes()))]))
    };
    assert_eq!(read(&words(json!({ "TOK": "a red fox" }))).tokens["TOK"], "a red fox");
    let many: serde_json::Map<_, _> = (0..1001).map(|i| (format!("w{i}"), json!(""))).collect();
    for (params, says) in [
        (json!({ "a": "x ".repeat(513) }), "a: expected at most 1024 bytes of text, found 1026"),
        (json!({ ("b".repeat(257)): "x" }), "expected a word of 1 to 256 bytes, found 257"),
        (json!({ " ": "x" }), "expected a word of 1 to 256 bytes"),
        (json!(many), "expected at most 1000 words, found 1001"),
    ] {
        assert!(refusal(&words(params)).contains(says), "{says}");
    }
    let rows = |n: usize| file(&[item("clip_l", &values(1, &[n, 16])), item("clip_g", &values(2, &[n, 24]))]);
    assert_eq!(read(&here.write("x.safetensors", rows(75))).new_tokens(), 75);
    assert!(refusal(&here.write("x.safetensors", rows(76))).contains("expected at most 75 tokens"));
}

fn open() -> Pipeline {
    let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
    Pipeline::open(&golden().join("pipeline"), options).expect("the tiny model")
}

/// The picture of a prompt with these files.
fn picture(pipeline: &Pipeline, prompt: &str, files: &[&PathBuf]) -> Vec<u8> {
    let request = json!({
        "prompt": prompt, "width": 32, "height": 24, "num_inference_steps": 2, "seed": 5, "lora_scale": 0.6
    });
    let replicate_weights = files.iter().map(|path| path.to_path_buf()).collect();
    let plan = PredictPlan { replicate_weights, ..plan::plan(&request) };
    pipeline.predict(&plan, &mut |_| ControlFlow::Continue(())).expect("a picture").remove(0).rgb
}

/// An embedding of two tokens.
fn embedding(here: &Temp, name: &str, seed: usize) -> PathBuf {
    let items = [item("clip_l", &values(seed, &[2, 16])), item("clip_g", &values(seed + 1, &[2, 24]))];
    here.write(name, file(&items))
}

/// Protects: an embedding by its name in any case and by ComfyUI's `embedding:`; diffusers' file for each encoder.
#[test]
fn embeddings_by_every_name() {
    let (here, pipeline) = (Temp::new(), open());
    let style = embedding(&here, "MyStyle.safetensors", 3);
    let want = picture(&pipeline, "a fox, MyStyle", &[&style]);
    assert_ne!(want, picture(&pipeline, "a fox, MyStyles", &[&style]));
    for prompt in ["a fox, mystyle", "a fox, embedding:MyStyle", "a fox, embedding:MYSTYLE.safetensors"] {
        assert_eq!(picture(&pipeline, prompt, &[&style]), want, "{prompt}");
    }
    let one = here.write("e/learned_embeds.safetensors", file(&[item("<my-style>", &values(3, &[2, 16]))]));
    let two = here.write("e/learned_embeds_2.safetensors", file(&[item("<my-style>", &values(4, &[2, 24]))]));
    let both = here.path().join("e");
    for files in [vec![&one, &two], vec![&two, &one], vec![&both]] {
        assert_eq!(picture(&pipeline, "a fox, <my-style>", &files), want, "{files:?}");
    }
    assert!(refusal(&one).contains("give both files"));
}

/// Protects: the order of the files does not show where the pooled state is read at the largest token id (eos_token_id 2), also where
/// they share a word; with one file it is what it would be alone.
#[test]
fn files_in_any_order() {
    let (here, pipeline) = (Temp::new(), open());
    let (a, b) = (embedding(&here, "aaa.safetensors", 3), embedding(&here, "bbb.safetensors", 50));
    let alone = picture(&pipeline, "bbb and a fox", &[&b]);
    assert_eq!(picture(&pipeline, "bbb and a fox", &[&a, &b]), alone);
    let shared = embedding(&here, "other/aaa.safetensors", 70);
    for (prompt, other) in [("aaa beside bbb", &b), ("an aaa", &shared)] {
        let (first, second) =
            (picture(&pipeline, prompt, &[&a, other]), picture(&pipeline, prompt, &[other, &a]));
        assert_eq!(first, second, "{prompt}");
    }
}

/// Protects: the prompt out of a picture's own text, which ends with `<lora:NAME:WEIGHT>`, gives that picture again: the
/// tag is no text, and its weight is the scale; the network that a pipeline keeps follows it.
#[test]
fn tags_in_the_prompt() {
    let (here, pipeline) = (Temp::new(), open());
    let path = here.write("mine.safetensors", file(&peft(&lora(2.0))));
    let plain = picture(&pipeline, "a fox", &[&path]);
    assert_eq!(picture(&pipeline, "a fox <lora:mine:0.6>", &[&path]), plain);
    let stronger = picture(&pipeline, "a fox <lora:mine:1.5>", &[&path]);
    assert_ne!(stronger, plain);
    assert_eq!(picture(&open(), "a fox<lora:mine:1.5>", &[&path]), stronger);
    assert_eq!(picture(&pipeline, "a fox <lora:unknown:1>", &[&path]), plain, "left out, with a warning");
}
