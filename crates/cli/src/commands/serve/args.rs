//! The options that `calotype serve` and `calotype worker` share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use calotype_serve::engine::Engine;
use calotype_serve::error::Error;
use calotype_serve::settings::Settings;
use clap::{Args, ValueEnum};

use crate::commands::networks::NetworkArgs;
use crate::failure::Failure;
use crate::output;
use crate::predictor::PredictorArgs;
use crate::service::{Predictions, Service, Trainings, Warmth};

/// Where jobs and files are, and how jobs are computed.
#[derive(Debug, Args)]
pub struct SharedArgs {
    /// Folder for the database and the files, where these are not elsewhere, and for the files of present jobs [default: calotype in
    /// the user's folder for data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The database of jobs: postgres://USER:PASSWORD@HOST/NAME [default: a file of SQLite in the folder of --data]
    #[arg(long, value_name = "URL", env = "CALOTYPE_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// The storage of files: s3://BUCKET/PREFIX, with AWS's environment variables [default: the folder of --data]
    #[arg(long, value_name = "URL")]
    storage: Option<String>,
    /// Read inputs under a URL from a folder instead; may be given several times
    #[arg(long, value_name = "PREFIX=DIR", value_parser = prefix_and_folder)]
    map_url: Vec<(String, PathBuf)>,
    /// Also fetch inputs from private networks and from this machine, and send webhooks there
    #[arg(long)]
    allow_private_networks: bool,
    /// Seconds after which another worker takes the job of a silent one
    #[arg(long, value_name = "SECONDS", default_value = "30", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    lease: u64,
    #[command(flatten)]
    predictor: PredictorArgs,
    /// Show what a picture is going to be every N of its steps; 0: never
    #[arg(long, value_name = "N", default_value = "5")]
    preview_every: u32,
    /// A small decoder for previews, diffusers' AutoencoderTiny (TAESD): its folder or its name on the hub, such as
    /// madebyollin/taesdxl [default: a linear map, which shows less detail]
    #[arg(long, value_name = "DIR|NAME")]
    preview_vae: Option<PathBuf>,
    /// Bytes of memory for networks that stay loaded between predictions, such as 12000000000; 0: none stays [default: half of the
    /// memory that is left at the start, and the last prediction's network in any case]
    #[arg(long, value_name = "BYTES")]
    keep_warm: Option<u64>,
    #[command(flatten)]
    networks: NetworkArgs,
}

/// Which jobs a worker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// Predictions
    Predict,
    /// Trainings, and preparations of their sets
    Train,
}

fn prefix_and_folder(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((prefix, folder)) if !prefix.is_empty() && PathBuf::from(folder).is_dir() => {
            Ok((prefix.into(), folder.into()))
        }
        Some((_, folder)) => Err(format!("expected a folder after =, found {folder:?}")),
        None => Err("expected PREFIX=DIR".into()),
    }
}

impl SharedArgs {
    /// The settings of a worker that takes jobs of all kinds, and does not listen.
    ///
    /// # Errors
    /// There is no folder for data.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let data = match &self.data {
            Some(data) => data.clone(),
            None => dirs::data_dir().map(|folder| folder.join("calotype")).ok_or_else(|| {
                Failure::BadInput(
                    "--data: expected a folder, found none, as the user has no folder for data".into(),
                )
            })?,
        };
        output::check_folder("--data", &data)?;
        Ok(Settings {
            database: self.database.clone(),
            storage: self.storage.clone(),
            map_urls: self.map_url.clone(),
            allow_private_networks: self.allow_private_networks,
            lease: Duration::from_secs(self.lease),
            node: node(),
            ..Settings::in_folder(data)
        })
    }

    /// What computes the jobs, with as many predictions at the same time as there are `workers`. A model with a name on a hub is fetched, if jobs
    /// are computed here.
    ///
    /// # Errors
    /// The model or a network is not there.
    pub fn engine(&self, workers: u16, quiet: bool) -> Result<Arc<dyn Engine>, Failure> {
        if workers > 0 {
            self.predictor.model.paths(quiet)?;
        }
        let (every, warmth) = (self.preview_every as usize, Warmth::new(self.keep_warm, workers)?);
        let predictions = Predictions::new(self.predictor.clone(), every, self.preview_vae.clone(), warmth);
        let resumed = self.train_options();
        let mut options = resumed.clone();
        if let Some(dtype) = self.predictor.dtype {
            options.push(format!("--dtype={}", dtype.name()).into());
        }
        for (name, value) in self.networks.absolute()?.given() {
            options.push(format!("{name}={value}").into());
        }
        Ok(Arc::new(Service { predictions, trainings: Trainings::new(options, resumed)? }))
    }

    /// The options of every training: the model's places, and the threads.
    fn train_options(&self) -> Vec<OsString> {
        let model = &self.predictor.model;
        let places = [("--model", &model.model), ("--config", &model.config), ("--vae", &model.vae)];
        let mut options = Vec::new();
        for (name, place) in places {
            options.extend(place.iter().flat_map(|place| [OsString::from(name), place.into()]));
        }
        options.extend(self.predictor.threads.map(|threads| format!("--threads={threads}").into()));
        options
    }

    /// Whether nobody has named a model.
    pub fn is_unasked(&self) -> bool {
        self.predictor.is_unasked()
    }
}

/// The worker's name: machine and process.
fn node() -> String {
    #[cfg(unix)]
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let host = "worker";
    format!("{host}:{}", std::process::id())
}

/// The service's error.
pub fn failure(e: Error) -> Failure {
    match e {
        Error::Settings(what) => Failure::BadInput(what),
        e => Failure::Failed(e.to_string()),
    }
}
