//! The tokenizers against transformers' `CLIPTokenizer`, on the real vocabulary (where it is at hand) and a tiny one.

#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;

use std::path::{Path, PathBuf};

use calotype_models::tokenizer::{Tokenizer, TokenizerError};
use serde_json::{Value, json};
use temp::{Temp, golden};

/// What `tokenizer_config.json` says of a token, as transformers 4 wrote SDXL's.
fn flagged(content: &str) -> Value {
    json!({"__type": "AddedToken", "content": content, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false})
}

/// SDXL's config, by its padding token.
fn config(pad: &str) -> Value {
    json!({
        "bos_token": flagged("<|startoftext|>"), "eos_token": flagged("<|endoftext|>"),
        "unk_token": flagged("<|endoftext|>"), "pad_token": pad, "model_max_length": 77,
    })
}

fn real_vocabulary() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/clip_tokenizer");
    if !dir.join("vocab.json").exists() {
        eprintln!("skipped: no ../shared/data");
        return None;
    }
    Some(dir)
}

/// A folder as transformers 4 saves it.
fn folder(vocabulary: &Path, pad: &str) -> Temp {
    let temp = Temp::new();
    for file in ["vocab.json", "merges.txt"] {
        temp.write(file, std::fs::read(vocabulary.join(file)).unwrap());
    }
    temp.write("tokenizer_config.json", config(pad).to_string());
    temp
}

/// The same tokenizer as one `tokenizer.json`; `as_lists` writes a merge as transformers 5 does.
fn single_file(vocabulary: &Path, pad: &str, as_lists: bool) -> Temp {
    let temp = Temp::new();
    let text = |file: &str| std::fs::read_to_string(vocabulary.join(file)).unwrap();
    let merges: Vec<Value> = text("merges.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| if as_lists { line.split(' ').collect() } else { line.into() })
        .collect();
    let vocab: Value = serde_json::from_str(&text("vocab.json")).unwrap();
    // How they come out of `save_pretrained`, for the folder above.
    let token = |content: &str, normalized: bool| {
        json!({"id": vocab[content], "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": normalized, "special": true})
    };
    let mut added = vec![token("<|startoftext|>", true), token("<|endoftext|>", pad != "<|endoftext|>")];
    if pad == "!" {
        added.insert(0, token("!", false));
    }
    let file = json!({
        "truncation": {"direction": "Right", "max_length": 77, "strategy": "LongestFirst", "stride": 0},
        "added_tokens": added,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "end_of_word_suffix": "</w>"},
    });
    temp.write("tokenizer.json", file.to_string());
    let names = json!({"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
                       "pad_token": pad, "model_max_length": 77});
    temp.write("tokenizer_config.json", names.to_string());
    temp
}

fn check(goldens: &str, vocabulary: &Path) {
    let cases = std::fs::read_to_string(golden().join(goldens)).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    for (field, pad) in [("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")] {
        let forms = [
            ("two files", folder(vocabulary, pad)),
            ("one file", single_file(vocabulary, pad, false)),
            ("one file, lists", single_file(vocabulary, pad, true)),
        ];
        for (form, dir) in forms {
            let tokenizer = Tokenizer::load(dir.path()).unwrap();
            for case in &cases {
                let prompt = case["prompt"].as_str().unwrap();
                let encoded = tokenizer.encode(prompt).unwrap();
                assert_eq!(json!(encoded.ids), case[field], "{field}, {form}: {prompt:?}");
                let whole = case[format!("{field}_length")].as_u64().unwrap();
                assert_eq!(encoded.truncated.is_some(), whole > 77, "{field}, {form}: {prompt:?}");
            }
        }
    }
}

/// The ids of SDXL's own vocabulary are transformers', in each form that a folder has.
#[test]
fn real_vocabulary_gives_transformers_ids() {
    if let Some(dir) = real_vocabulary() {
        check("tokens.json", &dir);
    }
}

/// The same on a small vocabulary, for clones without the real one.
#[test]
fn tiny_vocabulary_gives_transformers_ids() {
    check("tokens_tiny.json", &golden().join("tiny_vocab"));
}

fn tiny(pad: &str) -> Temp {
    folder(&golden().join("tiny_vocab"), pad)
}

fn ids(dir: &Temp, prompt: &str) -> Vec<u32> {
    Tokenizer::load(dir.path()).unwrap().encode(prompt).unwrap().ids
}

fn token(dir: &Temp, text: &str) -> u32 {
    let vocab = std::fs::read_to_string(dir.path().join("vocab.json")).unwrap();
    serde_json::from_str::<Value>(&vocab).unwrap()[text].as_u64().unwrap() as u32
}

/// The end of a prompt that does not fit is cut, and given back as text.
#[test]
fn a_long_prompt_says_what_was_cut() {
    let tokenizer = Tokenizer::load(tiny("!").path()).unwrap();
    let long = tokenizer.encode(&format!("{} Bb c", "a ".repeat(75))).unwrap();
    assert_eq!(long.ids.len(), 77);
    assert_eq!(long.truncated.as_deref(), Some("bb c"));
    let full = tokenizer.encode(&"a ".repeat(75)).unwrap();
    assert_eq!((full.ids.len(), full.truncated), (77, None));
    assert_eq!(full.ids[..76], long.ids[..76]);
}

/// The padding token is the folder's, from each of the places and forms that it is written in.
#[test]
fn special_tokens_come_from_the_folder() {
    let padding = |files: &[(&str, Value)]| {
        let dir = tiny("!");
        std::fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
        for (name, value) in files {
            dir.write(name, value.to_string());
        }
        (ids(&dir, "a")[76], token(&dir, "!"), token(&dir, "<|endoftext|>"))
    };
    let (none, mark, end) = padding(&[]);
    assert_eq!(none, end, "CLIPTokenizer's default");
    let map = ("special_tokens_map.json", json!({"pad_token": "!"}));
    assert_eq!(padding(&[map]).0, mark);
    let map = ("special_tokens_map.json", json!({"pad_token": {"content": "!", "lstrip": true}}));
    assert_eq!(padding(std::slice::from_ref(&map)).0, mark);
    let config = ("tokenizer_config.json", json!({"pad_token": "<|endoftext|>"}));
    assert_eq!(padding(std::slice::from_ref(&config)).0, end);
    assert_eq!(padding(&[map, config]).0, mark, "the map is read after the config");
}

/// Where the config has `added_tokens_decoder` (transformers 4.34 and later), it alone says which tokens are added.
#[test]
fn added_tokens_of_the_config_are_matched_whole() {
    let dir = tiny("<|endoftext|>");
    let mut config = config("<|endoftext|>");
    let id = token(&dir, "b");
    config["added_tokens_decoder"] = json!({
        id.to_string(): {"content": "b", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": false},
    });
    let split = ids(&dir, "abc");
    dir.write("tokenizer_config.json", config.to_string());
    let whole = ids(&dir, "abc");
    assert_ne!(split, whole);
    assert_eq!(whole[2], id, "an added token inside a word stands alone, without the word's end");
}

/// The end token in capitals is matched if it is looked for after lower-casing: by the flag that transformers ends up
/// with when the same token is named three times, with and without flags.
#[test]
fn the_flags_of_a_token_named_twice_are_transformers() {
    let bare = json!({"__type": "AddedToken", "content": "<|endoftext|>"});
    let (plain, full) = (json!("<|endoftext|>"), flagged("<|endoftext|>"));
    for ([eos, unk, pad], matched) in [
        ([&bare, &bare, &bare], false),
        ([&plain, &full, &plain], true),
        ([&full, &plain, &full], false),
        ([&full, &full, &full], true),
    ] {
        let dir = tiny("!");
        let config = json!({"eos_token": eos, "unk_token": unk, "pad_token": pad});
        dir.write("tokenizer_config.json", config.to_string());
        let end = token(&dir, "<|endoftext|>");
        assert_eq!(ids(&dir, "<|ENDOFTEXT|>")[1..3] == [end, end], matched, "{config}");
    }
}

/// An encoder with fewer embeddings or positions than the tokenizer needs is an error, not a wrong look-up.
#[test]
fn the_encoder_s_limits_hold() {
    let load = || Tokenizer::load(tiny("!").path()).unwrap();
    let small = load().for_encoder(100, 77).unwrap().encode("a");
    assert!(matches!(small, Err(TokenizerError::Vocabulary { vocab_size: 100, .. })), "{small:?}");
    let short = load().for_encoder(1000, 64).err().unwrap().to_string();
    assert!(short.ends_with("tokenizer_config.json: model_max_length: expected at most 64 (the text encoder's max_position_embeddings), found 77"), "{short}");
}

/// Each wrong file is an error that names it.
#[test]
fn wrong_files_are_named() {
    let vocab = json!({"a": 0, "b": 1, "<|startoftext|>": 2, "<|endoftext|>": 3});
    let message = |files: &[(&str, &str)]| {
        let dir = Temp::new();
        for (name, text) in files {
            dir.write(name, text);
        }
        Tokenizer::load(dir.path()).err().expect("an error").to_string()
    };
    let all = vocab.to_string();
    for (files, expected) in [
        (&[][..], "no tokenizer: expected tokenizer.json, or vocab.json and merges.txt"),
        (&[("vocab.json", all.as_str())][..], "merges.txt: No such file"),
        (&[("vocab.json", "{"), ("merges.txt", "")], "vocab.json: EOF"),
        (&[("vocab.json", "{\"a\": -1}"), ("merges.txt", "")], "vocab.json: a: invalid value: integer `-1`"),
        (&[("vocab.json", "{\"a\": 4294967295}"), ("merges.txt", "")], "expected an id below 16777216"),
        (&[("vocab.json", &all), ("merges.txt", "a b c")], "merges.txt: line 1: expected two tokens"),
        // Inside of the tokenizers crate this one would panic.
        (
            &[("vocab.json", "{\"a\": 0, \"b\": 1}"), ("merges.txt", "#version: 0.2\na b")],
            "expected \"ab\" in the vocabulary",
        ),
        (
            &[("vocab.json", &all), ("merges.txt", ""), ("tokenizer_config.json", "[]")],
            "tokenizer_config.json: expected a JSON object",
        ),
        (
            &[("vocab.json", &all), ("merges.txt", ""), ("tokenizer_config.json", "{\"pad_token\": 7}")],
            "tokenizer_config.json: pad_token: a string, or an object with a content",
        ),
        (
            &[
                ("vocab.json", &all),
                ("merges.txt", ""),
                ("tokenizer_config.json", "{\"model_max_length\": 2}"),
            ],
            "model_max_length: expected 3 to 16384, found 2",
        ),
        (
            &[("tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": {}, \"merges\": []}}")],
            "model.type: expected \"BPE\", found \"Unigram\"",
        ),
        (
            &[("tokenizer.json", "{\"model\": {\"vocab\": {}, \"merges\": [[\"a\"]]}}")],
            "tokenizer.json: model.merges[0]: two tokens",
        ),
    ] {
        let found = message(files);
        assert!(found.contains(expected), "{found}\nexpected: {expected}");
    }
}
