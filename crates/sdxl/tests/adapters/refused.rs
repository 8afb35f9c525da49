//! Files that are no trained weights, or not of this model: refused by name.

use super::*;

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
