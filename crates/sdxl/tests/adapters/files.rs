//! What is written is read again.

use super::*;

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
