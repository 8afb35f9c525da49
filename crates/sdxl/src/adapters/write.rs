//! Writes trained weights in every layout.

use std::collections::BTreeSet;
use std::io::{self, Write};

use calotype_models::single::Names;
use calotype_tensor::{Tensor, ops};

use super::members::{EMBEDDINGS, LORA, PARAMS, UNET};
use super::{AdapterError, LoraPair, SafetensorsFile, TrainedWeights, tokens};

/// kohya's and diffusers' prefixes of the networks whose layers have LoRA.
const UNET_PREFIX: [&str; 2] = ["lora_unet_", "unet."];
const TEXT_PREFIX: [[&str; 2]; 2] = [["lora_te1_", "text_encoder."], ["lora_te2_", "text_encoder_2."]];

/// The content of a `trained_model.tar` to write: uncompressed, with its files at the root.
#[derive(Debug)]
pub struct TarFile(Vec<(&'static str, Content)>);

#[derive(Debug)]
enum Content {
    Safetensors(SafetensorsFile),
    Text(String),
}

impl TarFile {
    /// Writes the whole tar. The same weights give the same bytes.
    ///
    /// # Errors
    /// An error of `to`.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(to);
        for (name, content) in &self.0 {
            let mut bytes = Vec::new();
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            match content {
                Content::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Content::Safetensors(file) => {
                    header.set_size(file.size());
                    header.set_path(name)?;
                    header.set_cksum();
                    write_member(tar.get_mut(), &header, file)?;
                    continue;
                }
            }
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, &*bytes)?;
        }
        tar.finish()
    }
}

/// Writes a large member directly; the tar library would need it as a reader.
fn write_member(to: &mut dyn Write, header: &tar::Header, file: &SafetensorsFile) -> io::Result<()> {
    to.write_all(header.as_bytes())?;
    file.write(to)?;
    let padding = file.size().next_multiple_of(512) - file.size();
    to.write_all(&vec![0; padding as usize])
}

impl TrainedWeights {
    /// Converts to the layout of `trained_model.tar`, which the original program also reads. The layout has LoRA of scale 1 on
    /// the UNet; another scale is multiplied into the up weights. Layers other than an attention's projections, which the
    /// original program leaves out, have diffusers' older names (`….conv1.lora.down.weight`).
    ///
    /// # Errors
    /// There is LoRA of text encoders, or a change that is no plain LoRA.
    pub fn to_tar(&self) -> Result<TarFile, AdapterError> {
        self.refuse_other("a trained_model.tar")?;
        let mut members = Vec::new();
        if let Some(layer) = self.text_lora.iter().find_map(|lora| lora.keys().next()) {
            return Err(AdapterError::Layout(format!(
                "{layer}: a trained_model.tar has no LoRA of text encoders"
            )));
        }
        if !self.lora.is_empty() {
            let mut file = SafetensorsFile::default();
            for (path, pair) in &self.lora {
                let name = processor(path).unwrap_or_else(|| format!("{path}.lora"));
                file.add(format!("{name}.down.weight"), &pair.down);
                file.add(format!("{name}.up.weight"), &scaled_up(pair));
            }
            members.push((LORA, Content::Safetensors(file)));
        }
        if !self.unet.is_empty() {
            let file = SafetensorsFile { tensors: self.unet.clone(), ..Default::default() };
            members.push((UNET, Content::Safetensors(file)));
        }
        if let Some(embeddings) = &self.embeddings {
            let mut file = SafetensorsFile::default();
            for (i, tensor) in embeddings.iter().enumerate() {
                file.add(format!("text_encoders_{i}"), tensor);
            }
            members.push((EMBEDDINGS, Content::Safetensors(file)));
        }
        members.push((PARAMS, Content::Text(self.params())));
        Ok(TarFile(members))
    }

    /// `special_params.json`, as Python's `json.dump` writes it.
    fn params(&self) -> String {
        let quoted = |text: &String| serde_json::Value::from(text.as_str()).to_string();
        let entries: Vec<String> = self
            .tokens
            .iter()
            .map(|(token, value)| format!("{}: {}", quoted(token), quoted(value)))
            .collect();
        format!("{{{}}}", entries.join(", "))
    }

    /// Converts to kohya's layout: one file, with the embeddings bundled in it. If the UNet's LoRA has more than attentions, its
    /// layers have SDXL's original names, as in kohya's own files: A1111's web UI does not know all of diffusers' names.
    ///
    /// # Errors
    /// There is a full fine-tune, a change that is no plain LoRA, or a token stands for text other than new tokens.
    pub fn to_kohya(&self) -> Result<SafetensorsFile, AdapterError> {
        self.refuse_full("kohya's layout")?;
        self.refuse_other("kohya's layout of a LoRA")?;
        let mut file = SafetensorsFile::default();
        let original = self.original_names();
        for (prefixes, path, pair) in self.layers() {
            let original = original.as_ref().filter(|_| prefixes == UNET_PREFIX);
            let path = original.and_then(|names| Some(names.original(path)?.0)).unwrap_or(path.clone());
            let name = format!("{}{}", prefixes[0], path.replace('.', "_"));
            file.add(format!("{name}.lora_down.weight"), &pair.down);
            file.add(format!("{name}.lora_up.weight"), &pair.up);
            file.add(format!("{name}.alpha"), &Tensor::from_vec(vec![pair.alpha], &[]));
        }
        for (name, indices) in self.bundles()? {
            for (key, table) in ["clip_l", "clip_g"].iter().zip(self.embeddings.iter().flatten()) {
                let ids: Vec<u32> = indices.iter().map(|&i| i as u32).collect();
                file.add(format!("bundle_emb.{name}.{key}"), &ops::embedding(table, &ids));
            }
        }
        self.describe(&mut file);
        Ok(file)
    }

    /// The original names of the UNet's layers, if its LoRA has every ResNet, which tells the blocks' sizes.
    fn original_names(&self) -> Option<Names> {
        let count = |blocks: &str, block: usize, of: &str| {
            let has = |i: &usize| {
                let prefix = format!("{blocks}.{block}.{of}.{i}.");
                self.lora.range(prefix.clone()..).next().is_some_and(|(path, _)| path.starts_with(&prefix))
            };
            (0..).take_while(has).count()
        };
        let counts = |blocks: &str, of: &str| -> Vec<usize> {
            (0..).map(|block| count(blocks, block, of)).take_while(|count| *count > 0).collect()
        };
        let (down, up) = (counts("down_blocks", "resnets"), counts("up_blocks", "resnets"));
        let complete = !down.is_empty() && down.iter().rev().map(|n| n + 1).eq(up.iter().copied());
        let attention: Vec<bool> = (0..up.len()).map(|i| count("up_blocks", i, "attentions") > 0).collect();
        complete.then(|| Names::unet(&down, &attention))
    }

    /// Adds the metadata that other programs read in a LoRA file.
    fn describe(&self, file: &mut SafetensorsFile) {
        let one = |values: BTreeSet<String>| match values.len() {
            1 => values.into_iter().next().unwrap_or_default(),
            _ => "Dynamic".into(),
        };
        let layers = || self.layers().map(|(_, _, pair)| pair);
        file.add_metadata("ss_network_module", "networks.lora");
        file.add_metadata("ss_network_dim", one(layers().map(|pair| pair.rank().to_string()).collect()));
        file.add_metadata("ss_network_alpha", one(layers().map(|pair| pair.alpha.to_string()).collect()));
        file.add_metadata("ss_base_model_version", "sdxl_base_v1-0");
        file.add_metadata("modelspec.architecture", "stable-diffusion-xl-v1-base/lora");
        if let Some(token) = self.tokens.keys().next() {
            file.add_metadata("modelspec.trigger_phrase", token);
        }
    }

    /// The embeddings by their name in prompts, as indices of new tokens. An embedding that no token stands for has a name of
    /// its own.
    fn bundles(&self) -> Result<Vec<(String, Vec<usize>)>, AdapterError> {
        let count = self.new_tokens();
        let mut bundles = Vec::new();
        for (token, value) in &self.tokens {
            match tokens::numbers(value).filter(|indices| indices.iter().all(|&i| i < count)) {
                Some(indices) => bundles.push((token.clone(), indices)),
                None => {
                    let problem =
                        format!("{token} stands for {value:?}: kohya's layout has tokens of embeddings only");
                    return Err(AdapterError::Layout(problem));
                }
            }
        }
        let covered: BTreeSet<usize> = bundles.iter().flat_map(|(_, indices)| indices.clone()).collect();
        let names = tokens::names(0..count).into_iter().enumerate();
        bundles.extend(names.filter(|(i, _)| !covered.contains(i)).map(|(i, name)| (name, vec![i])));
        Ok(bundles)
    }

    /// Converts to diffusers' layout: a LoRA as `save_lora_weights` writes it, or the UNet's tensors of a full fine-tune. The
    /// LoRA has scale 1; another scale is multiplied into the up weights. Embeddings go to a file of their own,
    /// [`Self::embeddings_file`].
    ///
    /// # Errors
    /// There are neither LoRA nor full tensors, or both; or there is a change that is no plain LoRA.
    pub fn to_diffusers(&self) -> Result<SafetensorsFile, AdapterError> {
        self.refuse_other("diffusers' file of a LoRA")?;
        let mut file = SafetensorsFile::default();
        file.add_metadata("format", "pt");
        for (prefixes, path, pair) in self.layers() {
            let name = format!("{}{path}", prefixes[1]);
            file.add(format!("{name}.lora_A.weight"), &pair.down);
            file.add(format!("{name}.lora_B.weight"), &scaled_up(pair));
        }
        match (file.tensors.is_empty(), self.unet.is_empty()) {
            (false, true) => {}
            (true, false) => file.tensors = self.unet.clone(),
            (false, false) => self.refuse_full("diffusers' file of a LoRA")?,
            (true, true) => return Err(AdapterError::Layout("neither LoRA nor a UNet to write".into())),
        }
        Ok(file)
    }

    /// Converts the embeddings for diffusers' `load_textual_inversion`: `clip_l` and `clip_g`.
    pub fn embeddings_file(&self) -> Option<SafetensorsFile> {
        let [first, second] = self.embeddings.as_ref()?;
        let mut file = SafetensorsFile::default();
        file.add_metadata("format", "pt");
        file.add("clip_l", first);
        file.add("clip_g", second);
        Some(file)
    }

    /// The LoRA of every layer, with the prefixes of the layer's network.
    fn layers(&self) -> impl Iterator<Item = ([&'static str; 2], &String, &LoraPair)> {
        let unet = self.lora.iter().map(|(path, pair)| (UNET_PREFIX, path, pair));
        let text = self.text_lora.iter().zip(TEXT_PREFIX);
        unet.chain(text.flat_map(|(lora, prefix)| lora.iter().map(move |(path, pair)| (prefix, path, pair))))
    }

    fn refuse_other(&self, layout: &str) -> Result<(), AdapterError> {
        match self.other_changes().next() {
            None => Ok(()),
            Some((key, change)) => {
                let problem = format!(
                    "{key}: {layout} has plain LoRA only, found {}; predict reads this file as it is",
                    change.name()
                );
                Err(AdapterError::Layout(problem))
            }
        }
    }

    fn refuse_full(&self, layout: &str) -> Result<(), AdapterError> {
        match self.unet.is_empty() {
            true => Ok(()),
            false => Err(AdapterError::Layout(format!(
                "a full fine-tune is no LoRA, and {layout} has nothing else"
            ))),
        }
    }
}

/// The name of a layer in an attention processor: `….attn1.to_out.0` → `….attn1.processor.to_out_lora`.
fn processor(path: &str) -> Option<String> {
    let path = path.strip_suffix(".0").filter(|path| path.ends_with(".to_out")).unwrap_or(path);
    let (attention, layer) = path.rsplit_once('.')?;
    let known = ["to_q", "to_k", "to_v", "to_out"].contains(&layer)
        && attention.rsplit('.').next()?.starts_with("attn");
    known.then(|| format!("{attention}.processor.{layer}_lora"))
}

/// The up weights, multiplied by the scale.
fn scaled_up(pair: &LoraPair) -> Tensor {
    if pair.scale() == 1.0 { pair.up.clone() } else { ops::scale(&pair.up, pair.scale() as f32) }
}
