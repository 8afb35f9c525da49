//! Which networks make what a training set lacks: `--captioner`, `--segmenter` and `--upscaler`.

use std::path::{Path, PathBuf};

use calotype_models::{ModelConfigs, ModelFolder};
use calotype_sdxl::ArgumentError;
use calotype_tensor::DType;
use calotype_train::Error;
use calotype_train::preprocess::{self, CaptionDecoding, Identity, Masks, Needs, Network, Networks, Used};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::hub::{self, Kind};

/// The value that leaves a network out.
const NONE: &str = "none";

/// The options that name the networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Preprocessing")]
pub struct NetworkArgs {
    /// What writes the captions that a set lacks: BLIP as transformers saves it, its name on a hub, or none, so that caption_prefix
    /// alone is the caption [default: what goes with the model; for SDXL Salesforce/blip-image-captioning-large]
    #[arg(long, value_name = "DIR|NAME|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub captioner: Option<String>,
    /// What finds mask_target_prompts: CLIPSeg as transformers saves it, or its name on a hub [default: what goes with the model;
    /// for SDXL CIDAS/clipseg-rd64-refined]
    #[arg(long, value_name = "DIR|NAME|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segmenter: Option<String>,
    /// What enlarges pictures smaller than three quarters of the resolution: Swin2SR as transformers saves it, its name on a hub, a
    /// file of SwinIR, or none, so that a filter does [default: what goes with the model; for SDXL
    /// caidas/swin2SR-realworld-sr-x4-64-bsrgan-psnr]
    #[arg(long, value_name = "DIR|FILE|NAME|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upscaler: Option<String>,
    /// How the captioner chooses words: sample (of the 50 likeliest at temperature 0.7, by the seed), greedy, or beam (3 beams)
    /// [default: sample]
    #[arg(long, value_enum, value_name = "HOW")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caption_decoding: Option<DecodingName>,
}

/// How a captioner chooses words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodingName {
    Sample,
    Greedy,
    Beam,
}

impl NetworkArgs {
    fn get(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Captioner => self.captioner.as_deref(),
            Kind::Segmenter => self.segmenter.as_deref(),
            Kind::Upscaler => self.upscaler.as_deref(),
            Kind::SafetyChecker | Kind::PreviewVae => None,
        }
    }

    /// The same with the absolute forms of paths, so that a run can be resumed from elsewhere.
    ///
    /// # Errors
    /// Nothing is there, and no model on a hub can have the name.
    pub fn absolute(&self) -> Result<NetworkArgs, Failure> {
        let absolute = |kind: Kind| -> Result<Option<String>, Failure> {
            let Some(given) = self.get(kind) else { return Ok(None) };
            let path = Path::new(given);
            if given == NONE || !path.exists() && hub::is_name(given) {
                return Ok(Some(given.to_owned()));
            }
            let path = hub::component(kind, path, true)?;
            let path = path.canonicalize().map_err(|e| Failure::io(&path, &e))?;
            Ok(Some(path.to_string_lossy().into_owned()))
        };
        Ok(NetworkArgs {
            captioner: absolute(Kind::Captioner)?,
            segmenter: absolute(Kind::Segmenter)?,
            upscaler: absolute(Kind::Upscaler)?,
            caption_decoding: self.caption_decoding,
        })
    }

    /// The given options, each by its name.
    pub fn given(&self) -> Vec<(&'static str, String)> {
        let networks = [Kind::Captioner, Kind::Segmenter, Kind::Upscaler];
        let networks = networks.map(|kind| (kind.option(), self.get(kind).map(String::from)));
        let decoding = self.caption_decoding.map(|how| how.name().to_owned());
        let all = networks.into_iter().chain([("--caption-decoding", decoding)]);
        all.filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl DecodingName {
    fn name(self) -> &'static str {
        match self {
            DecodingName::Sample => "sample",
            DecodingName::Greedy => "greedy",
            DecodingName::Beam => "beam",
        }
    }
}

impl From<DecodingName> for CaptionDecoding {
    fn from(name: DecodingName) -> CaptionDecoding {
        match name {
            DecodingName::Sample => CaptionDecoding::Sample,
            DecodingName::Greedy => CaptionDecoding::Greedy,
            DecodingName::Beam => CaptionDecoding::Beam,
        }
    }
}

/// The networks of a preprocessing, as far as they are known without fetching anything.
pub struct Library {
    captioner: Option<Place>,
    segmenter: Option<Place>,
    upscaler: Option<Place>,
    /// Whether the user asked for no segmenter.
    is_unsegmented: bool,
    decoding: DecodingName,
    dtype: DType,
}

/// Where a network is: a path, or a name on a hub.
struct Place {
    path: PathBuf,
    /// Whether nobody has asked for the network.
    is_default: bool,
}

impl Library {
    /// The networks for a model: those of the options, or else those in the model's folder, or SDXL's own where the model is as large.
    /// They compute in `dtype`.
    pub fn new(args: &NetworkArgs, folder: &ModelFolder, configs: &ModelConfigs, dtype: DType) -> Library {
        let place = |kind: Kind, name: &str| match args.get(kind) {
            Some(NONE) => None,
            Some(given) => Some(Place { path: given.into(), is_default: false }),
            None => {
                let beside = folder.path().join(name);
                let own = beside.is_dir().then_some(beside);
                let path = own.or_else(|| configs.is_sdxl().then(|| kind.default_name().into()))?;
                Some(Place { path, is_default: true })
            }
        };
        Library {
            captioner: place(Kind::Captioner, "captioner"),
            segmenter: place(Kind::Segmenter, "segmenter"),
            upscaler: place(Kind::Upscaler, "upscaler"),
            is_unsegmented: args.get(Kind::Segmenter) == Some(NONE),
            decoding: args.caption_decoding.unwrap_or(DecodingName::Sample),
            dtype,
        }
    }

    /// The name of the way in which the captioner chooses words.
    pub fn decoding(&self) -> &'static str {
        self.decoding.name()
    }

    /// Which network each step uses.
    pub fn used(&self, masks: &Masks) -> Used {
        let identity = |place: &Place| place.identity(self.dtype);
        let known = |place: &Option<Place>| place.as_ref().map_or(Identity::None, identity);
        let mask = match (masks, &self.segmenter) {
            (Masks::Own, _) => Identity::None,
            (Masks::Faces, _) => preprocess::faces_identity(),
            (Masks::Prompt { .. }, Some(segmenter)) => identity(segmenter),
            (Masks::Prompt { .. }, None) => Identity::Unknown(self.dtype), // an error if it is needed
        };
        Used { mask, upscaler: known(&self.upscaler), captioner: known(&self.captioner) }
    }

    /// The networks that are needed. What has a name on a hub is fetched.
    ///
    /// # Errors
    /// A network cannot be fetched, or is not such a network, or there is no segmenter for a prompt.
    pub fn networks(&self, needs: Needs, masks: &Masks, quiet: bool) -> Result<Networks<'static>, Failure> {
        let find = |needed: bool, place: &Option<Place>, kind: Kind| match place.as_ref().filter(|_| needed) {
            Some(place) => place.find(kind, quiet).map(Some),
            None => Ok(None),
        };
        let is_prompt = matches!(masks, Masks::Prompt { .. });
        let segmenter = find(needs.mask && is_prompt, &self.segmenter, Kind::Segmenter)?;
        let upscaler = find(needs.upscaler, &self.upscaler, Kind::Upscaler)?;
        let captioner = find(needs.captioner, &self.captioner, Kind::Captioner)?;
        let mask = match (masks, segmenter) {
            (Masks::Faces, _) => Some(Network::faces()),
            (Masks::Prompt { text, temperature }, Some(path)) => {
                Some(Network::segmenter(path, text.clone(), *temperature, self.dtype).map_err(Error::from)?)
            }
            (Masks::Prompt { .. }, None) if needs.mask => {
                let (expected, found) = match self.is_unsegmented {
                    true => ("a segmenter that finds it in the pictures without a mask", "--segmenter none"),
                    false => {
                        ("a segmenter for it (--segmenter DIR|NAME), as none goes with this model", "none")
                    }
                };
                return Err(ArgumentError::new("mask_target_prompts", expected, found).into());
            }
            _ => None,
        };
        Ok(Networks {
            mask,
            upscale: upscaler
                .map(|path| Network::upscaler(path, self.dtype))
                .transpose()
                .map_err(Error::from)?,
            caption: captioner
                .map(|path| Network::captioner(path, self.decoding.into(), self.dtype))
                .transpose()
                .map_err(Error::from)?,
        })
    }
}

impl Place {
    /// What tells the network from others, if its files are there.
    fn identity(&self, dtype: DType) -> Identity {
        let cached = || hub::cached(self.path.to_str()?);
        let found = if self.path.exists() { Some(self.path.clone()) } else { cached() };
        found.map_or(Identity::Unknown(dtype), |path| Identity::Known(preprocess::identity(&path, dtype)))
    }

    fn find(&self, kind: Kind, quiet: bool) -> Result<PathBuf, Failure> {
        hub::component(kind, &self.path, quiet).map_err(|failure| match (self.is_default, kind) {
            (true, Kind::Captioner) => failure.with(
                "(some pictures have no caption: write captions into the set, give --captioner a folder, or leave captions out \
                 with --captioner none)",
            ),
            (true, Kind::Upscaler) => failure.with(
                "(some pictures are small: give --upscaler a folder, or leave them to a filter with --upscaler none)",
            ),
            _ => failure,
        })
    }
}
