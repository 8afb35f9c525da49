//! Trained weights in every layout, on the tiny model: pictures against diffusers, round trips, and what a pipeline
//! keeps from one request to the next.

mod plan;
mod temp;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_models::ModelFolder;
use calotype_sdxl::PredictPlan;
use calotype_sdxl::adapters::{AdapterError, Adapters, LoraPair, Modules, SafetensorsFile, TrainedWeights};
use calotype_sdxl::pipeline::{EmptyNegative, Image, Options, Pipeline, Rng};
use calotype_sdxl::prompt::PromptEncoder;
use calotype_tensor::{DType, Tensor};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use temp::{Temp, golden};

const LAYOUTS: [&str; 3] = ["diffusers.safetensors", "kohya.safetensors", "trained_model.tar"];

fn file(name: &str) -> PathBuf {
    golden().join("adapters").join(name)
}

fn modules() -> Modules {
    let folder = ModelFolder::open(&golden().join("pipeline")).expect("the tiny model");
    Modules::of(&folder, &folder.configs().expect("its configs")).expect("its layers")
}

fn read(path: &Path) -> TrainedWeights {
    TrainedWeights::read(path, Some(&modules())).expect("trained weights")
}

fn open(dtype: DType) -> Pipeline {
    Pipeline::open(
        &golden().join("pipeline"),
        Options { dtype, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode },
    )
    .expect("the tiny model")
}

fn plan(request: Map<String, Value>) -> PredictPlan {
    plan::plan(&request.into())
}

fn predict(pipeline: &Pipeline, plan: &PredictPlan) -> Image {
    pipeline.predict(plan, &mut |_| ControlFlow::Continue(())).expect("a picture").remove(0)
}

/// A small request with these files.
fn small(files: &[PathBuf], lora_scale: f64) -> PredictPlan {
    let request = json!({
        "prompt": "a TOK", "width": 32, "height": 24, "num_inference_steps": 2, "seed": 5, "lora_scale": lora_scale
    });
    let plan = plan(request.as_object().expect("an object").clone());
    PredictPlan { replicate_weights: files.to_vec(), ..plan }
}

fn bytes(file: &SafetensorsFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.write(&mut bytes).expect("written");
    assert_eq!(bytes.len() as u64, file.size());
    bytes
}

fn tar(weights: &TrainedWeights) -> Vec<u8> {
    let mut bytes = Vec::new();
    weights.to_tar().expect("the cog layout").write(&mut bytes).expect("written");
    bytes
}

/// Protects the product: pictures with LoRA in each layout, of any scale, with new tokens in both prompts, and with LoRA of
/// the text encoders, are diffusers' own, within 1 of 255.
#[test]
fn pictures_equal_diffusers() {
    let bytes = std::fs::read(file("pictures.safetensors")).expect("golden file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("golden header");
    let requests: HashMap<String, String> =
        header.metadata().clone().expect("metadata").into_iter().collect();
    let pictures = SafeTensors::deserialize(&bytes).expect("golden file");
    let pipeline = open(DType::F32);
    assert_eq!(pictures.len(), 4);
    for (name, want) in pictures.tensors() {
        let mut request: Map<String, Value> = serde_json::from_str(&requests[&name]).expect("a request");
        let path = file(request["replicate_weights"].as_str().expect("a name"));
        request.insert("replicate_weights".into(), path.to_str().expect("text").into());
        let found = predict(&pipeline, &plan(request)).rgb;
        assert_eq!(found.len(), want.data().len(), "{name}");
        let worst = found.iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{name}: differs by {worst:?} of 255");
    }
}

/// Protects: what is written is read as it was, in each layout, and written again gives the same bytes.
#[test]
fn round_trips() {
    let (here, cog) = (Temp::new(), read(&file("trained_model.tar")));
    assert_eq!((cog.lora.len(), cog.new_tokens(), cog.tokens["TOK"].as_str()), (32, 2, "<s0><s1>"));
    let first = tar(&cog);
    assert_eq!(read(&here.write("any.name", &first)), cog);
    assert_eq!(tar(&read(&here.write("again.tar", &first))), first);

    let kohya = bytes(&cog.to_kohya().expect("kohya's"));
    let back = read(&here.write("kohya.safetensors", &kohya));
    assert_eq!(back, cog);
    assert_eq!(bytes(&back.to_kohya().expect("kohya's")), kohya);

    let diffusers = bytes(&cog.to_diffusers().expect("diffusers'"));
    let back = read(&here.write("TOK.safetensors", &diffusers));
    assert_eq!(back.lora, cog.lora);
    assert_eq!(bytes(&back.to_diffusers().expect("diffusers'")), diffusers);
    let embeddings = bytes(&cog.embeddings_file().expect("embeddings"));
    let back = read(&here.write("TOK.safetensors", embeddings));
    assert_eq!(TrainedWeights { lora: cog.lora.clone(), ..back }, cog, "an embedding is called by its file");
}

/// Protects: LoRA of text encoders and of any scale keeps its scale: exactly in kohya's layout, in the weights elsewhere.
#[test]
fn scales_stay() {
    let here = Temp::new();
    for name in ["kohya.safetensors", "diffusers.safetensors"] {
        let trained = read(&file(name));
        assert!(trained.text_lora.iter().all(|lora| !lora.is_empty()));
        let kohya = bytes(&trained.to_kohya().expect("kohya's"));
        assert_eq!(read(&here.write("kohya.safetensors", kohya)), trained);
        let diffusers = bytes(&trained.to_diffusers().expect("diffusers'"));
        let back = read(&here.write("diffusers.safetensors", diffusers));
        for (path, pair) in &trained.lora {
            let (now, scale) = (&back.lora[path], pair.scale() as f32);
            assert_ne!(scale, 1.0);
            assert_eq!(now.scale(), 1.0);
            assert_eq!(now.up.f32s(), pair.up.f32s().iter().map(|x| x * scale).collect::<Vec<_>>());
        }
        assert!(matches!(trained.to_tar(), Err(AdapterError::Layout(_))), "a tar has no text encoders");
    }
}

/// Protects: several words, and tokens that none stands for, in kohya's layout; what it has no place for is refused.
#[test]
fn tokens_of_every_kind() {
    let here = Temp::new();
    let rows = |width: usize| Tensor::from_vec((0..3 * width).map(|i| i as f32).collect(), &[3, width]);
    let with = |tokens: &[(&str, &str)]| TrainedWeights {
        embeddings: Some([rows(16), rows(24)]),
        tokens: tokens.iter().map(|(word, value)| (word.to_string(), value.to_string())).collect(),
        ..Default::default()
    };
    for tokens in [&[("A", "<s0><s1>"), ("B", "<s2>")][..], &[]] {
        let trained = with(tokens);
        let kohya = bytes(&trained.to_kohya().expect("kohya's"));
        assert_eq!(read(&here.write("kohya.safetensors", kohya)), trained, "{tokens:?}");
        assert_eq!(read(&here.write("cog.tar", tar(&trained))), trained, "{tokens:?}");
    }
    let turned = with(&[("A", "<s2><s1>")]);
    let back = read(&here.write("turned.safetensors", bytes(&turned.to_kohya().expect("kohya's"))));
    let wanted = [2, 1].map(|row| rows(16).f32s()[16 * row..][..16].to_vec()).concat();
    let [first, _] = back.embeddings.as_ref().expect("embeddings");
    let number: usize = back.tokens["A"][2..3].parse().expect("a number");
    assert_eq!(first.f32s()[16 * number..][..32], wanted);
    let worded = with(&[("TOK", "a <s0> man")]);
    assert_eq!(read(&here.write("worded.tar", tar(&worded))), worded);
    assert!(matches!(worded.to_kohya(), Err(AdapterError::Layout(_))));
    assert!(matches!(worded.to_diffusers(), Err(AdapterError::Layout(_))), "nothing but embeddings");
}

/// Protects: the tar that the original writes, byte for byte in its layout: plain, at its root, the same each time.
#[test]
fn the_tar_is_as_published() {
    let ours = tar(&read(&file("trained_model.tar")));
    let member = |bytes: &[u8], at: usize| -> (String, Vec<u8>) {
        let name = bytes[at..at + 100].split(|b| *b == 0).next().expect("a name");
        (String::from_utf8_lossy(name).into(), bytes[at + 100..at + 157].to_vec())
    };
    let (name, numbers) = member(&ours, 0);
    assert_eq!(name, "lora.safetensors");
    assert!(numbers.starts_with(b"0000644\x000000000\x000000000\0"), "mode, user, group");
    assert_eq!(&ours[136..147], b"00000000000", "no time");
    assert_eq!((&ours[257..262], ours[156]), (&b"ustar"[..], b'0'));
    let text = String::from_utf8_lossy(&ours);
    assert!(text.contains(r#"{"TOK": "<s0><s1>"}"#));
    assert!(text.contains(".attn1.processor.to_out_lora.down.weight"));
}

/// Protects: a request without weights, after one with, gets the picture of a fresh pipeline; so does one with other
/// weights, another scale, or a file that has changed meanwhile.
#[test]
fn nothing_stays_behind() {
    let fresh = |plan: &PredictPlan| predict(&open(DType::F32), plan).rgb;
    let here = Temp::new();
    let changing = here.path().join("weights");
    let copy = |name: &str| std::fs::copy(file(name), &changing).map(|_| ()).expect("copied");
    let shared = open(DType::F32);
    let plain = small(&[], 0.6);
    let mut seen = vec![fresh(&plain)];
    for name in LAYOUTS {
        for scale in [0.6, 1.5, -0.5] {
            let plan = small(&[file(name)], scale);
            let (with, want) = (predict(&shared, &plan).rgb, fresh(&plan));
            assert!(with == want && !seen.contains(&with), "{name} × {scale}");
            seen.push(with);
        }
        copy(name);
        let plan = small(std::slice::from_ref(&changing), 0.6);
        let want = fresh(&small(&[file(name)], 0.6));
        assert_eq!(predict(&shared, &plan).rgb, want, "{name} after a change");
        assert_eq!(predict(&shared, &plain).rgb, seen[0], "none after {name}");
    }
    assert_eq!(predict(&shared, &small(&[file(LAYOUTS[0])], 0.0)).rgb, seen[0], "scale 0 changes nothing");
}

/// Protects: several at once add up, in f32 whatever their order; words and tokens of each stay their own.
#[test]
fn several_add_up() {
    let [diffusers, kohya, cog] = LAYOUTS.map(file);
    let pipeline = open(DType::F32);
    let one = predict(&pipeline, &small(std::slice::from_ref(&cog), 0.6)).rgb;
    let both = predict(&pipeline, &small(&[cog.clone(), diffusers.clone()], 0.6)).rgb;
    let turned = predict(&pipeline, &small(&[diffusers, cog.clone()], 0.6)).rgb;
    assert_ne!(one, both);
    let apart = both.iter().zip(&turned).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(apart <= Some(1), "{apart:?}");
    // The second file's tokens are numbered on: TOK stands for both files', and <s2><s3> for the second's alone.
    let with = |prompt: &str| {
        let plan = PredictPlan { prompt: prompt.into(), ..small(&[cog.clone(), kohya.clone()], 0.6) };
        predict(&pipeline, &plan).rgb
    };
    let tok = with("a TOK");
    assert!(
        tok == with("a <s0><s1><s2><s3>") || tok == with("a <s2><s3><s0><s1>"),
        "in an order of their own"
    );
    assert_ne!(with("a <s0><s1>"), with("a <s2><s3>"));
}

/// Protects: bf16 takes the merged weights too.
#[test]
fn bf16_takes_them() {
    let plan = small(&[file("trained_model.tar")], 0.6);
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    let distance = |a: &Image, b: &Image| a.rgb.iter().zip(&b.rgb).map(square).sum::<f64>();
    let want = predict(&open(DType::F32), &plan);
    let (with, without) = (predict(&open(DType::BF16), &plan), predict(&open(DType::BF16), &small(&[], 0.6)));
    assert!(distance(&with, &want) < 0.1 * distance(&without, &want));
}

/// Protects: a full fine-tune takes the folder's place, whatever its dtype; what it leaves out stays.
#[test]
fn a_full_fine_tune_replaces() {
    let here = Temp::new();
    let base =
        std::fs::read(golden().join("pipeline/unet/diffusion_pytorch_model.safetensors")).expect("a UNet");
    let base = SafeTensors::deserialize(&base).expect("safetensors");
    let tensor = |key: &str, scale: f32| {
        let view = base.tensor(key).expect("there");
        let values = view.data().as_chunks::<4>().0.iter().map(|b| scale * f32::from_le_bytes(*b)).collect();
        Tensor::from_vec(values, view.shape())
    };
    let write = |name: &str, scale: f32, dtype| {
        let keys = ["conv_in.weight", "conv_in.bias", "mid_block.attentions.0.proj_in.weight"];
        let unet = keys.map(|key| (key.to_string(), tensor(key, scale).to_dtype(dtype).into())).into();
        here.write(name, tar(&TrainedWeights { unet, ..Default::default() }))
    };
    let (same, half) = (write("same.tar", 1.0, DType::F32), write("half.tar", 0.5, DType::F32));
    let rounded = write("rounded.tar", 0.5, DType::BF16);
    let pipeline = open(DType::F32);
    let picture = |files: &[PathBuf]| predict(&pipeline, &small(files, 0.6)).rgb;
    let plain = picture(&[]);
    assert_eq!(picture(std::slice::from_ref(&same)), plain);
    assert_ne!(picture(std::slice::from_ref(&half)), plain);
    assert_ne!(picture(&[rounded]), plain);
    assert_ne!(picture(&[half.clone(), file("trained_model.tar")]), picture(std::slice::from_ref(&half)));
    let error = pipeline.predict(&small(&[same, half.clone()], 0.6), &mut |_| ControlFlow::Continue(()));
    let line = error.err().expect("refused").to_string();
    assert!(line.ends_with("half.tar: conv_in.bias: an earlier file's full fine-tune has it too"), "{line}");

    let full = read(&half);
    assert!(matches!(full.to_kohya(), Err(AdapterError::Layout(_))));
    let exported = bytes(&full.to_diffusers().expect("a UNet"));
    let exported = SafeTensors::deserialize(&exported).expect("safetensors");
    let mut names = exported.names();
    names.sort();
    assert_eq!(names, ["conv_in.bias", "conv_in.weight", "mid_block.attentions.0.proj_in.weight"]);
}

/// Protects: LoRA of a convolution is merged like any other, written as kohya's and LyCORIS' trainers do.
#[test]
fn convolutions_have_lora_too() {
    let here = Temp::new();
    let values = |n: usize| (0..n).map(|i| 0.3 * ((i * 7 % 11) as f32 - 5.0)).collect();
    let pair = LoraPair::new(
        Tensor::from_vec(values(2 * 4 * 9), &[2, 4, 3, 3]),
        Tensor::from_vec(values(8 * 2), &[8, 2, 1, 1]),
    );
    let trained = TrainedWeights { lora: [("conv_in".to_string(), pair)].into(), ..Default::default() };
    let path = here.write("conv.safetensors", bytes(&trained.to_kohya().expect("kohya's")));
    assert_eq!(read(&path).lora["conv_in"].down.shape(), [2, 4, 3, 3]);
    let pipeline = open(DType::F32);
    assert_ne!(predict(&pipeline, &small(&[path], 0.6)).rgb, predict(&pipeline, &small(&[], 0.6)).rgb);
}

/// The error of reading these bytes.
fn refusal(bytes: &[u8]) -> String {
    let here = Temp::new();
    let path = here.write("x", bytes);
    let error = TrainedWeights::read(&path, Some(&modules())).expect_err("refused").to_string();
    assert!(!error.contains('\n') && error.len() < 400, "{error}");
    error.split_once("/x").expect("the file's name").1.to_string()
}

/// A safetensors file of f32 tensors of these shapes.
fn tensors(shapes: &[(&str, &[usize])]) -> Vec<u8> {
    let mut file = SafetensorsFile::default();
    for (key, shape) in shapes {
        file.tensors.insert(key.to_string(), Tensor::zeros(shape, DType::F32).into());
    }
    bytes(&file)
}

/// Protects: a key that is not used is an error by its name, with what was expected and found.
#[test]
fn every_key_is_used_or_refused() {
    const LAYER: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    const KOHYA: &str = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
    let key = |part: &str| format!("{LAYER}.{part}.weight");
    let (a, b, odd) = (key("lora_A"), key("lora_B"), "unet.mid_block.attentions.9.proj_in.lora_A.weight");
    let (down, up, alpha) =
        (format!("{KOHYA}.lora_down.weight"), format!("{KOHYA}.lora_up.weight"), format!("{KOHYA}.alpha"));
    let mid = (format!("{KOHYA}.lora_mid.weight"), format!("{KOHYA}.dora_scale"));
    type Shapes<'a> = Vec<(&'a str, &'a [usize])>;
    let cases: Vec<(Shapes, String)> = vec![
        (
            vec![(&a, &[2, 16]), (&b, &[16, 2]), ("extra", &[1])],
            ": extra: no key of a LoRA or of an embedding".into(),
        ),
        (vec![(odd, &[2, 16])], format!(": {odd}: the model's unet has no such layer")),
        (
            vec![("lora_unet_x_y.alpha", &[])],
            ": lora_unet_x_y.alpha: the model's unet has no such layer".into(),
        ),
        (vec![(&a, &[2, 16])], format!(": {a}: without its up weight")),
        (vec![(&b, &[16, 2])], format!(": {b}: without its down weight")),
        (vec![(&alpha, &[])], format!(": {alpha}: without its down and up weights")),
        (vec![(&a, &[2, 8]), (&b, &[16, 2])], format!(": {a}: expected (2, 16), found (2, 8)")),
        (vec![(&a, &[2, 16]), (&b, &[8, 2])], format!(": {b}: expected (16, 2), found (8, 2)")),
        (vec![(&a, &[2, 16]), (&b, &[16, 3])], format!(": {b}: expected (16, 2), found (16, 3)")),
        (vec![(&a, &[2, 16, 3, 3]), (&b, &[16, 2])], format!(": {a}: expected (2, 16), found (2, 16, 3, 3)")),
        (vec![(&a, &[0, 16]), (&b, &[16, 0])], format!(": {a}: expected (rank, in), found (0, 16)")),
        (vec![(&a, &[]), (&b, &[16, 2])], format!(": {a}: expected (0, 16), found ()")),
        (
            vec![(&a, &[2, 16]), (&b, &[16, 2]), (&down, &[2, 16])],
            format!(": {a}: of the same layer as {down}"),
        ),
        (
            vec![(&down, &[2, 16]), (&up, &[16, 2]), (&alpha, &[2])],
            format!(": {alpha}: expected one number, found (2,)"),
        ),
        (vec![(&mid.0, &[2, 2])], format!(": {}: without its down and up weights", mid.0)),
        (vec![(&mid.1, &[2, 2])], format!(": {}: without the weights that it belongs to", mid.1)),
        (vec![("clip_l", &[2, 16])], ": x: expected embeddings for both text encoders".into()),
        (
            vec![("bundle_emb.TOK.clip_l", &[2, 16]), ("bundle_emb.TOK.clip_g", &[1, 24])],
            ": TOK: expected as many tokens for both text encoders, found 2 and 1".into(),
        ),
        (vec![("emb_params", &[2, 16])], ": emb_params: an embedding for Stable Diffusion 1 or 2".into()),
    ];
    for (shapes, says) in cases {
        let found = refusal(&tensors(&shapes));
        assert!(found.starts_with(&says), "{found}\nexpected: {says}");
    }
    let unnamed = TrainedWeights::read(&file("kohya.safetensors"), None).expect_err("refused").to_string();
    assert!(unnamed.contains("kohya's names can only be told apart with the model"), "{unnamed}");
}

/// A tar of one member.
fn one_member(name: &str, kind: tar::EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, content).expect("in memory");
    tar.into_inner().expect("in memory")
}

/// Protects: a tar's members are files of known names at its root, and nothing else.
#[test]
fn strange_tars_are_refused() {
    use tar::EntryType;
    for (name, kind, content, says) in [
        (
            "../lora.safetensors",
            EntryType::Regular,
            &b""[..],
            "\"../lora.safetensors\": expected no other members than",
        ),
        ("/unet.safetensors", EntryType::Regular, b"", "\"/unet.safetensors\": expected no other members"),
        ("model/notes.txt", EntryType::Regular, b"", "\"model/notes.txt\": expected no other members"),
        ("model/lora.safetensors", EntryType::Regular, b"?", "/lora.safetensors: not a safetensors file"),
        ("notes.txt", EntryType::Regular, b"", "\"notes.txt\": expected no other members"),
        (
            "lora.safetensors",
            EntryType::Symlink,
            b"",
            "\"lora.safetensors\": expected a file, found a member of another",
        ),
        ("unet.safetensors", EntryType::Link, b"", "\"unet.safetensors\": expected a file"),
        ("embeddings.pti", EntryType::Directory, b"", "\"embeddings.pti\": expected a file"),
        ("lora.safetensors", EntryType::Regular, b"?", "/lora.safetensors: not a safetensors file"),
        ("embeddings.pti", EntryType::Regular, b"", "/embeddings.pti: not a safetensors file"),
        ("special_params.json", EntryType::Regular, b"[]", "/special_params.json: expected a JSON object"),
        (
            "special_params.json",
            EntryType::Regular,
            b"{\"TOK\": 3}",
            "/special_params.json: TOK: expected text, found 3",
        ),
        ("special_params.json", EntryType::Regular, b"{", "/special_params.json: not valid JSON"),
        (
            "special_params.json",
            EntryType::Regular,
            b"{\"TOK\": \"<s0>\"}",
            "/special_params.json: TOK: expected text or new tokens of the 0 in embeddings.pti, found <s0>",
        ),
    ] {
        let found = refusal(&one_member(name, kind, content));
        assert!(found.contains(says), "{found}\nexpected: {says}");
    }
    let member = one_member("special_params.json", EntryType::Regular, b"{}");
    assert!(refusal(&[&member[..1024], &member].concat()).contains("twice in the tar"));
    // A header whose sum is wrong is quoted with its name.
    let mut damaged = one_member("lo\u{1b}ra\n", EntryType::Regular, b"");
    damaged[148..156].fill(b'x');
    let damaged = refusal(&damaged);
    assert!(damaged.contains("not a readable tar") && !damaged.contains(char::is_control), "{damaged}");
    assert!(refusal(&[0; 2048]).contains("not a safetensors file"));
    assert!(refusal(b"\x1f\x8b\x08").contains("gzip"));
    assert!(refusal(b"PK\x03\x04").contains("zip"));
    assert!(refusal(b"").contains("empty"));
    let wrong = tensors(&[("text_encoders_2", &[1, 2])]);
    assert!(
        refusal(&one_member("embeddings.pti", EntryType::Regular, &wrong))
            .contains(": text_encoders_2: expected")
    );
    let wrong = tensors(&[("conv_in.weight", &[8, 4, 3])]);
    let found = refusal(&one_member("unet.safetensors", EntryType::Regular, &wrong));
    assert!(found.ends_with("conv_in.weight: expected (8, 4, 3, 3), found (8, 4, 3)"), "{found}");
}

/// Protects: a file that ends early is refused wherever it ends, and one with a broken byte never panics.
#[test]
fn broken_files_are_refused() {
    let (here, modules) = (Temp::new(), modules());
    for name in LAYOUTS {
        let whole = std::fs::read(file(name)).expect("golden file");
        let end = whole.iter().rposition(|b| *b != 0).expect("content");
        let read = |bytes: &[u8]| TrainedWeights::read(&here.write("x", bytes), Some(&modules));
        for cut in (0..end).step_by(997).chain([1, 7, 8, 9, 512, 1024, 1536, end]) {
            assert!(read(&whole[..cut]).is_err(), "{name} of {cut} bytes");
        }
        let mut broken = whole.clone();
        for at in (0..whole.len().min(6000)).step_by(37) {
            let was = std::mem::replace(&mut broken[at], b'7');
            let _ = read(&broken);
            broken[at] = was;
        }
    }
}

/// Protects: what does not fit the model is found when the model is known.
#[test]
fn embeddings_must_fit_the_model() {
    let here = Temp::new();
    let path = here.write("wide.safetensors", tensors(&[("clip_l", &[2, 16]), ("clip_g", &[2, 32])]));
    let error = open(DType::F32).predict(&small(&[path], 0.6), &mut |_| ControlFlow::Continue(()));
    let error = error.err().expect("refused");
    assert!(matches!(error, calotype_sdxl::Error::Adapter(_)), "the caller's to mend");
    let line = error.to_string();
    assert!(
        line.ends_with("embeddings for the second text encoder: expected (2, 24), found (2, 32)"),
        "{line}"
    );
}

/// Protects an embedding of one text encoder alone: that encoder gets the embedding, the other one the prompt without the word, and a
/// second file for the other encoder completes the embedding.
#[test]
fn an_embedding_for_one_encoder() {
    let here = Temp::new();
    let table =
        |width: usize| Tensor::from_vec((0..2 * width).map(|i| 0.05 * i as f32).collect(), &[2, width]);
    let write = |name: &str, keys: &[(&str, usize)]| {
        let mut file = SafetensorsFile::default();
        for (key, width) in keys {
            file.tensors.insert(key.to_string(), table(*width).into());
        }
        here.write(name, bytes(&file))
    };
    let both = write("a/Style.safetensors", &[("clip_l", 16), ("clip_g", 24)]);
    let [first, second] =
        [write("b/Style.safetensors", &[("clip_l", 16)]), write("c/Style.safetensors", &[("clip_g", 24)])];
    let folder = ModelFolder::open(&golden().join("pipeline")).expect("the tiny model");
    let configs = folder.configs().expect("its configs");
    let encoder = PromptEncoder::open(&folder, &configs, DType::F32).expect("its tokenizers");
    let hidden = |files: &[PathBuf], prompt: &str| {
        let adapters = Adapters::load(files, &vec![1.0; files.len()], &modules(), &configs).expect("loaded");
        let embeds = encoder.encode(&folder, &adapters, &[prompt], Default::default()).expect("encoded");
        let rows = embeds.hidden.to_vec();
        let part = |range: std::ops::Range<usize>| {
            rows.chunks(40).flat_map(|row| row[range.clone()].to_vec()).collect::<Vec<_>>()
        };
        [part(0..16), part(16..40)]
    };
    let prompt = "a Style fox";
    let (want, without) = (hidden(&[both], prompt), hidden(&[], "a fox"));
    assert_eq!(hidden(std::slice::from_ref(&first), prompt), [want[0].clone(), without[1].clone()]);
    assert_eq!(hidden(std::slice::from_ref(&second), prompt), [without[0].clone(), want[1].clone()]);
    assert_eq!(hidden(&[second, first.clone()], prompt), want);
    let error =
        TrainedWeights::read(&first, Some(&modules())).expect_err("no training goes on from it").to_string();
    assert!(error.contains("expected embeddings for both text encoders"), "{error}");
}
