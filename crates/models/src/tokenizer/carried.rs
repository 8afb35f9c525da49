//! The tables of CLIP's tokenizer, for models that come without one. `tools/clip_merges.py` made the file of merges.

use std::io::Read;

use serde_json::json;

/// The merges, a line each, in the order of their ids.
const MERGES: &[u8] = include_bytes!("clip_merges.txt.gz");
const WORD_END: &str = super::WORD_END;

/// CLIP's merges, as the text of a `merges.txt`.
pub(super) fn merges() -> String {
    let mut text = String::new();
    let read = flate2::read::GzDecoder::new(MERGES).read_to_string(&mut text);
    assert!(read.is_ok(), "the carried merges are whole");
    text
}

/// CLIP's 49,408 tokens in the order of their ids: a character for each byte, the same at a word's end, the merged pairs, start
/// and end.
pub(super) fn tokens(merges: &str) -> Vec<String> {
    // Characters that are printable stand for their own bytes. The other bytes have characters from U+0100.
    let bytes = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('\u{100}'..='\u{143}');
    let bytes: Vec<String> = bytes.map(String::from).collect();
    let ends = bytes.iter().map(|byte| format!("{byte}{WORD_END}"));
    let merged = merges.lines().map(|line| line.replace(' ', ""));
    let specials = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
    bytes.iter().cloned().chain(ends).chain(merged).chain(specials).collect()
}

/// The `tokenizer_config.json` of SDXL's tokenizers, which differ in the padding.
pub(super) fn config(pad: &str) -> String {
    json!({
        "bos_token": "<|startoftext|>", "do_lower_case": true, "eos_token": "<|endoftext|>", "errors": "replace",
        "model_max_length": super::CLIP_TOKENS, "pad_token": pad, "tokenizer_class": "CLIPTokenizer",
        "unk_token": "<|endoftext|>"
    })
    .to_string()
}

/// A file of a tokenizer's folder, name and text, for a folder to be written.
pub type TokenizerFile = (&'static str, String);

/// The files of a folder from which [`super::Tokenizer::load`], transformers and diffusers read the carried tokenizer.
pub fn files(pad: &str) -> Vec<TokenizerFile> {
    let merges = merges();
    let ids = tokens(&merges).into_iter().enumerate().map(|(id, token)| (token, json!(id)));
    let vocab = serde_json::Value::Object(ids.collect()).to_string();
    let map = json!({
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": pad, "unk_token": "<|endoftext|>"
    });
    vec![
        ("merges.txt", format!("#version: 0.2\n{merges}")),
        ("special_tokens_map.json", map.to_string()),
        ("tokenizer_config.json", config(pad)),
        ("vocab.json", vocab),
    ]
}
