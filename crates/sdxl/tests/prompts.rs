//! Long and weighted prompts on the tiny model, against compel.

mod temp;

use calotype_models::ModelFolder;
use calotype_sdxl::adapters::Adapters;
use calotype_sdxl::prompt::{LongPrompts, PromptEncoder, PromptSyntax};
use calotype_tensor::{DType, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;
use temp::golden;

/// The embeddings of prompts: hidden states and pooled states.
fn encode(prompts: &[&str], syntax: PromptSyntax) -> [Tensor; 2] {
    let folder = ModelFolder::open(&golden().join("pipeline")).expect("the tiny model");
    let configs = folder.configs().expect("its configs");
    let encoder = PromptEncoder::open(&folder, &configs, DType::F32).expect("its tokenizers");
    let embeds = encoder.encode(&folder, &Adapters::default(), prompts, syntax).expect("encoded");
    [embeds.hidden, embeds.pooled]
}

const WEIGHTS: PromptSyntax = PromptSyntax { long: LongPrompts::Chunk, weights: true };
const PLAIN: PromptSyntax = PromptSyntax { long: LongPrompts::Chunk, weights: false };

/// Protects long and weighted prompts: the states are compel's, each prompt of a request in as many chunks as the longest, and the
/// pooled state is that of the first chunk.
#[test]
fn states_equal_compel() {
    let bytes = std::fs::read(golden().join("prompts.safetensors")).expect("golden file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("golden header");
    let file = SafeTensors::deserialize(&bytes).expect("golden file");
    let values = |name: &str| -> Vec<f32> {
        let data = file.tensor(name).expect("there").data().to_vec();
        data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let longest = |weights: bool| {
        let case = if weights { "long_weights" } else { "long" };
        case_of(&header.metadata().clone().expect("metadata")[case]).0
    };
    let metadata = header.metadata().clone().expect("metadata");
    let mut seen = 0;
    for (case, text) in metadata.iter().filter(|(case, _)| *case != "torch") {
        let (prompt, weights) = case_of(text);
        let syntax = if weights { WEIGHTS } else { PLAIN };
        let [hidden, pooled] = encode(&[&prompt, &longest(weights)], syntax);
        let (rows, width) = (hidden.dim(1), hidden.dim(2));
        let want = values(&format!("{case}/hidden"));
        assert!(rows == 77 * if weights { 3 } else { 2 } && want.len() == 3 * 77 * width, "{case}");
        for (name, found, want) in [
            ("hidden", &hidden.to_vec()[..rows * width], &want[..rows * width]),
            ("pooled", &pooled.to_vec()[..pooled.dim(1)], &values(&format!("{case}/pooled"))[..]),
        ] {
            let apart = found.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(found.len() == want.len() && apart < 2e-5, "{case} {name}: {apart}");
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
}

/// A case's prompt, and whether its weights are read.
fn case_of(text: &str) -> (String, bool) {
    let case: Value = serde_json::from_str(text).expect("a case");
    (case["prompt"].as_str().expect("text").into(), case["weights"] == true)
}

/// Protects prompts as the published system has them: without the option, brackets are text, and a prompt that is cut off is the
/// first chunk.
#[test]
fn text_stays_text() {
    let long = "a fox in the snow, ".repeat(30);
    let truncate = PromptSyntax { long: LongPrompts::Truncate, weights: false };
    let ([hidden, pooled], [all, first]) = (encode(&[&long], truncate), encode(&[&long], PLAIN));
    assert!(hidden.dim(1) == 77 && all.dim(1) > 77);
    let apart = hidden.to_vec().iter().zip(all.to_vec()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-5 && pooled.to_vec() == first.to_vec(), "{apart}");
    let [text, _] = encode(&["a (red:1.4) fox"], PLAIN);
    let [weighted, _] = encode(&["a (red:1.4) fox"], WEIGHTS);
    let [bare, _] = encode(&["a red fox"], WEIGHTS);
    assert!(text.to_vec() != weighted.to_vec() && weighted.to_vec() != bare.to_vec());
    let [escaped, _] = encode(&[r"a \(red:1.4\) fox"], WEIGHTS);
    assert_eq!(escaped.to_vec(), text.to_vec());
}

/// Protects breaks: each part is a chunk of its own, and the pooled state is the first part's.
#[test]
fn breaks_begin_chunks() {
    let ([both, pooled], [first, first_pooled], [second, _]) = (
        encode(&["a red fox BREAK in the snow"], WEIGHTS),
        encode(&["a red fox"], PLAIN),
        encode(&["in the snow"], PLAIN),
    );
    assert_eq!(both.shape(), [1, 154, first.dim(2)]);
    assert_eq!(both.to_vec(), [first.to_vec(), second.to_vec()].concat());
    assert_eq!(pooled.to_vec(), first_pooled.to_vec());
}
