//! Pictures with trained weights, and what a pipeline keeps from one request to the next.

use super::*;

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
    assert_eq!(pictures.len(), 5);
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

/// Protects a warm service: with room, the networks of several requests stay, and requests in turn get the pictures of a fresh pipeline. What
/// trained weights leave as it is is in memory once. Without room, the last one stays alone, in the memory of a fresh pipeline.
#[test]
fn several_networks_stay() {
    for dtype in [DType::F32, DType::BF16] {
        let [first, _, other] = LAYOUTS.map(file);
        let plans = [
            small(&[], 1.0),
            small(std::slice::from_ref(&first), 1.0),
            small(&[first], -0.5),
            small(&[other], 1.0),
        ];
        let fresh = plans.each_ref().map(|plan| {
            let pipeline = open(dtype);
            (predict(&pipeline, plan).rgb, pipeline.kept_bytes())
        });
        let pipeline = open(dtype);
        pipeline.keep(u64::MAX);
        let mut bytes = Vec::new();
        for (plan, (want, _)) in plans.iter().zip(&fresh).cycle().take(2 * plans.len()) {
            assert!(predict(&pipeline, plan).rgb == *want, "with room, {dtype}");
            bytes.push(pipeline.kept_bytes());
        }
        let whole = fresh[0].1;
        assert_eq!(bytes[0], whole);
        assert!(bytes[..4].windows(2).all(|two| two[0] < two[1] && two[1] - two[0] < whole / 2), "{bytes:?}");
        assert_eq!(bytes[4..], [bytes[3]; 4], "nothing is loaded twice");
        pipeline.keep(0);
        assert_eq!(pipeline.kept_bytes(), fresh[3].1);
        for (plan, (want, alone)) in plans.iter().zip(&fresh) {
            assert!(predict(&pipeline, plan).rgb == *want, "without room, {dtype}");
            assert_eq!(pipeline.kept_bytes(), *alone);
        }
    }
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
