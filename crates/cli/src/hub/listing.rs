//! The files of a model on the hub, and the selection of those that are read.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Needed;
use super::client::Problem;
use super::names::{self, Commit};
use super::sums::Sum;

/// Each network's folder, and the beginning of the names of its weights.
const NETWORKS: [(&str, &str); 4] = [
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
];
/// The most files of a model. SDXL has 15 to 20, and more if it has shards.
const MAX_FILES: usize = 1024;

/// A file on the hub, as the listing describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub size: Option<u64>,
    pub sum: Option<Sum>,
}

/// A version of a model.
#[derive(Debug)]
pub struct Listing {
    /// Mirrors may omit it.
    pub commit: Option<Commit>,
    /// The files that are read.
    pub files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Info {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

/// A large file. The repository itself contains only a pointer to it.
#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Listing {
    /// Parses the hub's answer. Files with names that no model has are left out.
    pub fn parse(text: &str, needed: Needed) -> Result<Listing, Problem> {
        let info: Info = serde_json::from_str(text)
            .map_err(|e| Problem::Invalid(format!("expected a model's listing, found other text: {e}")))?;
        let commit = info.sha.as_deref().map(Commit::parse).transpose().map_err(|found| {
            let found: String = found.chars().take(80).collect();
            Problem::Invalid(format!("sha: expected 4 to 64 hex digits, found {found:?}"))
        })?;
        let siblings = info.siblings.iter().filter(|file| names::is_file(&file.rfilename));
        let all: BTreeSet<&str> = siblings.clone().map(|file| file.rfilename.as_str()).collect();
        let wanted: BTreeSet<&str> = wanted(&all, needed).into_iter().collect();
        if wanted.len() > MAX_FILES {
            return Err(Problem::Invalid(format!(
                "expected at most {MAX_FILES} files, found {}",
                wanted.len()
            )));
        }
        let mut files: Vec<Listed> =
            siblings.filter(|file| wanted.contains(file.rfilename.as_str())).map(Sibling::listed).collect();
        // The small file that describes the model comes first, then the others by name, each once.
        files.sort_by_key(|file| (file.name != "model_index.json", file.name.clone()));
        files.dedup_by(|a, b| a.name == b.name);
        Ok(Listing { commit, files })
    }

    /// Makes sure that this is the version `asked`.
    pub fn pin(&mut self, asked: Commit) -> Result<(), Problem> {
        if let Some(found) = self.commit.as_ref().filter(|found| **found != asked) {
            return Err(Problem::Invalid(format!(
                "sha: expected {asked}, which was asked for, found {found}"
            )));
        }
        self.commit = Some(asked);
        Ok(())
    }

    pub fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.name == name)
    }

    /// A network that every SDXL model has, but for which this model has no weights.
    pub fn without_weights(&self) -> Option<&'static str> {
        let weights = |folder: &str| {
            self.files.iter().any(|f| {
                f.name.ends_with(".safetensors")
                    && f.name.split_once('/').is_some_and(|(in_it, _)| in_it == folder)
            })
        };
        NETWORKS[1..].iter().map(|(folder, _)| *folder).find(|folder| !weights(folder))
    }
}

impl Sibling {
    fn listed(&self) -> Listed {
        let large = self.lfs.as_ref();
        // The repository's checksum of a large file is that of its pointer.
        let sum = match large {
            Some(lfs) => lfs.sha256.as_deref().and_then(Sum::sha256),
            None => self.blob_id.as_deref().and_then(Sum::git),
        };
        let size = large.and_then(|lfs| lfs.size).or(self.size);
        Listed { name: self.rfilename.clone(), size, sum }
    }
}

/// The files of an SDXL folder. For each network, the fp16 variant of its weights is selected, if there is one, because it is
/// half as large. A VAE may be by itself, without a folder.
pub fn wanted<'a>(files: &BTreeSet<&'a str>, needed: Needed) -> Vec<&'a str> {
    if let Needed::Network(kind) = needed {
        return kind.wanted(files);
    }
    let alone = needed == Needed::Vae && !files.iter().any(|file| file.starts_with("vae/"));
    let networks: &[(&str, &str)] = match needed {
        Needed::Vae if alone => &[("", "diffusion_pytorch_model")],
        Needed::Vae => &NETWORKS[3..],
        _ => &NETWORKS,
    };
    let is_weights = |name: &str| name.ends_with(".safetensors");
    let small = |folder: &str, name: &str| match folder {
        "" if needed != Needed::Vae => name == "model_index.json",
        "scheduler" | "tokenizer" | "tokenizer_2" => {
            needed != Needed::Vae && (name.ends_with(".json") || name.ends_with(".txt"))
        }
        _ => name == "config.json" && networks.iter().any(|(network, _)| *network == folder),
    };
    let parts = |file: &'a str| file.split_once('/').unwrap_or(("", file));
    let mut found: Vec<&str> =
        files.iter().copied().filter(|file| small(parts(file).0, parts(file).1)).collect();
    if needed == Needed::Configs {
        return found;
    }
    for &(network, stem) in networks {
        let weights: Vec<(&str, &str)> = files
            .iter()
            .copied()
            .map(|file| (file, parts(file)))
            .filter(|(_, (folder, name))| {
                *folder == network && name.starts_with(stem) && !name.contains("non_ema")
            })
            .map(|(file, (_, name))| (file, name))
            .filter(|(_, name)| is_weights(name) || name.ends_with(".json"))
            .collect();
        let is_fp16 = |name: &str| name.contains(".fp16.");
        let has_fp16 = weights.iter().any(|(_, name)| is_fp16(name) && is_weights(name));
        found.extend(weights.iter().filter(|(_, name)| is_fp16(name) == has_fp16).map(|(file, _)| *file));
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the selection: of the published model's files (their names), those that are read, and no other weights.
    #[test]
    fn files_of_the_published_model() {
        let all = "model_index.json README.md sd_xl_base_1.0.safetensors scheduler/scheduler_config.json \
            text_encoder/config.json text_encoder/model.safetensors text_encoder/model.fp16.safetensors \
            text_encoder/flax_model.msgpack text_encoder/openvino_model.bin text_encoder_2/config.json \
            text_encoder_2/model.safetensors tokenizer/merges.txt tokenizer/vocab.json unet/config.json \
            unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors \
            unet/diffusion_pytorch_model.non_ema.safetensors vae/config.json \
            vae/diffusion_pytorch_model-00001-of-00002.safetensors vae/diffusion_pytorch_model-00002-of-00002.safetensors \
            vae/diffusion_pytorch_model.safetensors.index.json vae_1_0/diffusion_pytorch_model.safetensors";
        let expected = "model_index.json scheduler/scheduler_config.json text_encoder/config.json \
            text_encoder/model.fp16.safetensors text_encoder_2/config.json text_encoder_2/model.safetensors \
            tokenizer/merges.txt tokenizer/vocab.json unet/config.json unet/diffusion_pytorch_model.fp16.safetensors \
            vae/config.json vae/diffusion_pytorch_model-00001-of-00002.safetensors \
            vae/diffusion_pytorch_model-00002-of-00002.safetensors vae/diffusion_pytorch_model.safetensors.index.json";
        assert_eq!(
            wanted(&all.split_whitespace().collect(), Needed::Model),
            expected.split_whitespace().collect::<Vec<_>>()
        );
    }

    /// Protects the selection for --config and --vae: no weights, and nothing but the VAE, in a model's folder or by itself.
    #[test]
    fn files_of_parts() {
        let model = "model_index.json text_encoder_2/config.json text_encoder_2/model.safetensors tokenizer_2/vocab.json \
            unet/config.json unet/diffusion_pytorch_model.safetensors vae/config.json vae/diffusion_pytorch_model.safetensors";
        let alone = "README.md config.json diffusion_pytorch_model.safetensors sdxl_vae.safetensors";
        for (all, needed, expected) in [
            (
                model,
                Needed::Configs,
                "model_index.json text_encoder_2/config.json tokenizer_2/vocab.json unet/config.json vae/config.json",
            ),
            (model, Needed::Vae, "vae/config.json vae/diffusion_pytorch_model.safetensors"),
            (alone, Needed::Vae, "config.json diffusion_pytorch_model.safetensors"),
        ] {
            let found = wanted(&all.split_whitespace().collect(), needed);
            assert_eq!(found, expected.split_whitespace().collect::<Vec<_>>());
        }
    }

    /// Protects sizes and checksums of small and large files, as the hub gives them. Names that lead elsewhere are left out.
    #[test]
    fn sizes_and_sums() {
        let sha256 = "ab".repeat(32);
        let text = serde_json::json!({ "sha": "c0ffee", "siblings": [
            { "rfilename": "vae/diffusion_pytorch_model.safetensors", "size": 7, "blobId": "1".repeat(40),
              "lfs": { "sha256": sha256, "size": 7, "pointerSize": 130 } },
            { "rfilename": "model_index.json", "size": 3, "blobId": "2".repeat(40) },
            { "rfilename": "model_index.json" },
            { "rfilename": "tokenizer/../../../outside.json" },
            { "rfilename": "tokenizer/a\\..\\b.json" },
            { "rfilename": "/scheduler/scheduler_config.json" },
        ]});
        let listing = Listing::parse(&text.to_string(), Needed::Model).expect("a listing");
        let [index, vae] = &listing.files[..] else { panic!("{:?}", listing.files) };
        assert_eq!(
            (index.name.as_str(), index.size, &index.sum),
            ("model_index.json", Some(3), &Sum::git(&"2".repeat(40)))
        );
        assert_eq!((vae.size, &vae.sum), (Some(7), &Sum::sha256(&sha256)));
        assert_eq!(listing.without_weights(), Some("text_encoder_2"));
        for wrong in ["", "[]", "{\"siblings\": 1}", "{\"sha\": \"../..\"}", "<html>"] {
            assert!(matches!(Listing::parse(wrong, Needed::Model), Err(Problem::Invalid(_))), "{wrong}");
        }
    }
}
