//! Networks that are no part of SDXL, each on the hub by itself, as transformers or diffusers saves it: config.json, the tables of a
//! tokenizer, weights.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use calotype_models::weights::{Network, Weights};

/// A network that is no part of SDXL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Upscaler,
    Captioner,
    Segmenter,
    SafetyChecker,
    PreviewVae,
}

/// The folder of a safety checker within that of a Stable Diffusion 1.5.
const SAFETY_CHECKER: &str = "safety_checker/";
const CONFIG: &str = "config.json";
const PROCESSOR: &str = "preprocessor_config.json";
/// What a tokenizer may be written in.
const TABLES: [&str; 6] = [
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];
/// Weights by the beginning and the end of their names, the best first: safetensors, of which the fp16 variant is half as large, or
/// pickled ones. A file's name may say a shard's number between the two.
type WeightNames = [[&'static str; 2]; 3];
/// As transformers names them.
const WEIGHTS: WeightNames =
    [["model", ".fp16.safetensors"], ["model", ".safetensors"], ["pytorch_model", ".bin"]];
/// As diffusers names them.
const DIFFUSERS_WEIGHTS: WeightNames = [
    ["diffusion_pytorch_model", ".fp16.safetensors"],
    ["diffusion_pytorch_model", ".safetensors"],
    ["diffusion_pytorch_model", ".bin"],
];

impl Kind {
    /// The option that names the network.
    pub fn option(self) -> &'static str {
        match self {
            Kind::Upscaler => "--upscaler",
            Kind::Captioner => "--captioner",
            Kind::Segmenter => "--segmenter",
            Kind::SafetyChecker => "--safety-checker",
            Kind::PreviewVae => "--preview-vae",
        }
    }

    /// The name on the hub of the network that is published for SDXL.
    pub fn default_name(self) -> &'static str {
        match self {
            Kind::Upscaler => "caidas/swin2SR-realworld-sr-x4-64-bsrgan-psnr",
            Kind::Captioner => "Salesforce/blip-image-captioning-large",
            Kind::Segmenter => "CIDAS/clipseg-rd64-refined",
            Kind::SafetyChecker => "CompVis/stable-diffusion-safety-checker",
            Kind::PreviewVae => "madebyollin/taesdxl",
        }
    }

    /// Whether the network may be a single file.
    pub fn takes_file(self) -> bool {
        self == Kind::Upscaler
    }

    /// What is expected, for messages.
    pub fn described(self) -> &'static str {
        match self {
            Kind::Upscaler => "an upscaler as transformers saves it",
            Kind::Captioner => "a captioner as transformers saves it",
            Kind::Segmenter => "a segmenter as transformers saves it",
            Kind::SafetyChecker => "a safety checker as diffusers saves it",
            Kind::PreviewVae => "a small decoder (AutoencoderTiny) as diffusers saves it",
        }
    }

    fn weight_names(self) -> WeightNames {
        if self == Kind::PreviewVae { DIFFUSERS_WEIGHTS } else { WEIGHTS }
    }

    /// The sets of tables, one of which the network's tokenizer needs.
    fn tables(self) -> &'static [&'static [&'static str]] {
        match self {
            Kind::Upscaler | Kind::SafetyChecker | Kind::PreviewVae => &[&[]],
            Kind::Captioner => &[&["vocab.txt"], &["tokenizer.json"]],
            Kind::Segmenter => &[&["vocab.json", "merges.txt"], &["tokenizer.json"]],
        }
    }

    /// The folder of the network within a repository that has others too, with a slash at its end.
    fn folder(self, has: impl Fn(&str) -> bool) -> &'static str {
        let is_inner = self == Kind::SafetyChecker && has(&format!("{SAFETY_CHECKER}{CONFIG}"));
        if is_inner { SAFETY_CHECKER } else { "" }
    }

    /// Those of a repository's files that are read.
    pub fn wanted<'a>(self, files: &BTreeSet<&'a str>) -> Vec<&'a str> {
        let folder = self.folder(|name| files.contains(name));
        let inside = files.iter().filter_map(|file| Some((*file, file.strip_prefix(folder)?)));
        let has_tables = self.tables() != [&[] as &[&str]];
        let small = |name: &str| name == CONFIG || name == PROCESSOR || has_tables && TABLES.contains(&name);
        let mut found: Vec<&str> =
            inside.clone().filter(|(_, name)| small(name)).map(|(file, _)| file).collect();
        let mut weights = self.weight_names().into_iter().map(|names| weights(inside.clone(), names));
        found.extend(weights.find(|weights| !weights.is_empty()).unwrap_or_default());
        found.sort_unstable();
        found
    }

    /// The name of something that the network needs, and that is not among `files`.
    pub fn lacks(self, files: &BTreeSet<&str>) -> Option<&'static str> {
        let folder = self.folder(|name| files.contains(name));
        let has = |name: &str| files.contains(format!("{folder}{name}").as_str());
        let inside = || files.iter().filter_map(|file| Some((*file, file.strip_prefix(folder)?)));
        if !has(CONFIG) {
            return Some(CONFIG);
        }
        if !self.tables().iter().any(|tables| tables.iter().all(|table| has(table))) {
            return self.tables()[0].iter().find(|table| !has(table)).copied();
        }
        let has_weights = self.weight_names().into_iter().any(|names| !weights(inside(), names).is_empty());
        (!has_weights).then_some(match self {
            Kind::PreviewVae => "weights (diffusion_pytorch_model.safetensors or .bin)",
            _ => "weights (model.safetensors or pytorch_model.bin)",
        })
    }

    /// Describes what is missing or damaged in a folder in the cache. `None`: all is right.
    pub fn problem_of(self, folder: &Path, files: &BTreeSet<String>) -> Option<String> {
        // A link in the cache may lead nowhere.
        let files: BTreeSet<&str> =
            files.iter().map(String::as_str).filter(|name| folder.join(name).is_file()).collect();
        if let Some(what) = self.lacks(&files) {
            return Some(format!("no {what}"));
        }
        let folder = folder.join(self.folder(|name| files.contains(name)));
        let config = fs::read_to_string(folder.join(CONFIG)).unwrap_or_default();
        if serde_json::from_str::<serde_json::Value>(&config).is_err() {
            return Some(format!("{CONFIG}: damaged"));
        }
        // The weights of all kinds but one have the names of a safety checker's.
        let network = if self == Kind::PreviewVae { Network::DecoderTiny } else { Network::SafetyChecker };
        let weights = || Weights::open(&folder, network, None, None);
        let has_safetensors = files.iter().any(|name| name.ends_with(".safetensors"));
        has_safetensors.then(|| weights().err()).flatten().map(|e| e.to_string())
    }
}

/// The weights of one kind among `files` (path, name in the folder): a single file, or else shards with their index.
fn weights<'a>(files: impl Iterator<Item = (&'a str, &'a str)>, [stem, ending]: [&str; 2]) -> Vec<&'a str> {
    let is_whole = |name: &str| name.strip_prefix(stem) == Some(ending);
    let is_shard = |name: &str| {
        let between = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending));
        between.is_some_and(|number| number.starts_with('-') && number.contains("-of-"))
    };
    let is_index = |name: &str| name.strip_prefix(stem) == Some(format!("{ending}.index.json").as_str());
    let files: Vec<_> = files.collect();
    if let Some((file, _)) = files.iter().find(|(_, name)| is_whole(name)) {
        return vec![file];
    }
    let shards = files.iter().filter(|(_, name)| is_shard(name) || is_index(name));
    let shards: Vec<&str> = shards.map(|(file, _)| *file).collect();
    // An index without shards, or shards without their index, are no weights.
    let indices = files.iter().filter(|(_, name)| is_index(name)).count();
    if indices == 1 && shards.len() > 1 { shards } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(kind: Kind, files: &str) -> String {
        kind.wanted(&files.split_whitespace().collect()).join(" ")
    }

    /// Protects the selection: what a network reads of the files of the published repositories, and nothing else.
    #[test]
    fn files_of_the_published_networks() {
        for (kind, files, expected) in [
            (
                Kind::Upscaler,
                "README.md config.json preprocessor_config.json pytorch_model.bin vocab.txt",
                "config.json preprocessor_config.json pytorch_model.bin",
            ),
            (
                Kind::Captioner,
                "README.md config.json model.safetensors preprocessor_config.json pytorch_model.bin \
                 special_tokens_map.json tf_model.h5 tokenizer.json tokenizer_config.json vocab.txt",
                "config.json model.safetensors preprocessor_config.json special_tokens_map.json tokenizer.json \
                 tokenizer_config.json vocab.txt",
            ),
            (
                Kind::Segmenter,
                "config.json merges.txt model-00001-of-00002.safetensors model-00002-of-00002.safetensors \
                 model.safetensors.index.json pytorch_model.bin vocab.json onnx/model.onnx",
                "config.json merges.txt model-00001-of-00002.safetensors model-00002-of-00002.safetensors \
                 model.safetensors.index.json vocab.json",
            ),
            (
                Kind::Segmenter,
                "config.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin pytorch_model.bin.index.json",
                "config.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin pytorch_model.bin.index.json",
            ),
            (
                Kind::SafetyChecker,
                "README.md config.json preprocessor_config.json pytorch_model.bin",
                "config.json preprocessor_config.json pytorch_model.bin",
            ),
            // Stable Diffusion 1.5.
            (
                Kind::SafetyChecker,
                "model_index.json safety_checker/config.json safety_checker/model.fp16.safetensors \
                 safety_checker/model.safetensors safety_checker/pytorch_model.bin unet/config.json",
                "safety_checker/config.json safety_checker/model.fp16.safetensors",
            ),
            (
                Kind::PreviewVae,
                "README.md config.json diffusion_pytorch_model.bin diffusion_pytorch_model.safetensors taesdxl_decoder.safetensors",
                "config.json diffusion_pytorch_model.safetensors",
            ),
        ] {
            assert_eq!(wanted(kind, files), expected, "{kind:?}");
        }
    }

    /// Protects what is said of a repository that is no such network: the first thing that it lacks.
    #[test]
    fn what_is_lacking() {
        for (kind, files, lacks) in [
            (Kind::Upscaler, "model.safetensors", Some("config.json")),
            (Kind::Upscaler, "config.json model.safetensors", None),
            (Kind::Captioner, "config.json model.safetensors", Some("vocab.txt")),
            (Kind::Captioner, "config.json model.safetensors tokenizer.json", None),
            (Kind::Segmenter, "config.json model.safetensors vocab.json", Some("merges.txt")),
            (
                Kind::SafetyChecker,
                "config.json flax_model.msgpack",
                Some("weights (model.safetensors or pytorch_model.bin)"),
            ),
            (
                Kind::SafetyChecker,
                "config.json model.safetensors.index.json",
                Some("weights (model.safetensors or pytorch_model.bin)"),
            ),
            (
                Kind::PreviewVae,
                "config.json model.safetensors",
                Some("weights (diffusion_pytorch_model.safetensors or .bin)"),
            ),
        ] {
            assert_eq!(kind.lacks(&files.split_whitespace().collect()), lacks, "{kind:?} {files}");
        }
    }
}
