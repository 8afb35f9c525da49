//! Models from a hub by name, through the hub's cache: `stabilityai/stable-diffusion-xl-base-1.0`.
//!
//! A complete model in the cache is used without network access. Otherwise, the hub lists the model's files, and the files of
//! an SDXL folder that are missing or damaged are fetched. The hub is not trusted: names are checked before they become paths,
//! and files before they get their names.
//!
//! ```text
//! settings.rs   the environment variables
//! names.rs      checked names, revisions, tags and commits
//! kind.rs       networks beside the model: their options, their names, their files
//! cache.rs      the cache on this machine, shared with other programs
//! listing.rs    the files of a model, and those that are read
//! client.rs, address.rs   requests, redirects, and the use of the token
//! pace.rs       the least speed of an answer
//! fetch.rs, sums.rs       one file, complete or not at all
//! ```

mod address;
mod cache;
mod client;
mod fetch;
mod kind;
mod listing;
mod names;
mod pace;
mod settings;
mod sums;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use calotype_models::config::VaeConfig;
use calotype_models::weights::{Network, Weights};
use calotype_models::{Component, ModelFolder};

use self::cache::Repo;
use self::client::{Client, Problem};
use self::fetch::{Fault, Fetch};
pub use self::kind::Kind;
use self::listing::Listing;
use self::names::ModelName;
use self::settings::HubSettings;
use crate::failure::Failure;
use crate::output;

const INDEX: &str = "model_index.json";
/// Checking a file of this size takes a second.
const LARGE: u64 = 1 << 30;

/// What to do where the hub has no upscaler of a name.
const SWINIR: &str = "(SwinIR is not on the hub: fetch a .pth file from its project's releases, and give --upscaler that file)";

/// What is needed of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// All networks.
    Model,
    /// Everything but weights.
    Configs,
    /// The VAE, in the folder of a model or by itself.
    Vae,
    /// A network that is no part of SDXL.
    Network(Kind),
}

/// Whether `text` is the name of a model on a hub, `owner/name` or `owner/name@revision`. If a folder named `owner` exists, it
/// is taken for a path.
pub fn is_name(text: &str) -> bool {
    ModelName::parse(text)
        .is_some_and(|name| name.repo.split_once('/').is_some_and(|(owner, _)| !Path::new(owner).exists()))
}

/// The folder of what has this name on a hub, as far as it is in the cache. Nothing is fetched.
pub fn cached(name: &str) -> Option<PathBuf> {
    let settings = HubSettings::from_env().ok()?;
    Repo::new(&settings.cache, &ModelName::parse(name)?).snapshot()
}

/// The path of a network that is no part of SDXL: a folder, a file where the network may be one, or what has this name on a hub,
/// which is fetched as [`folder`] does.
///
/// # Errors
/// Nothing is there, or it is not such a network, or as [`folder`].
pub fn component(kind: Kind, given: &Path, quiet: bool) -> Result<PathBuf, Failure> {
    if given.is_dir() {
        return Ok(given.to_path_buf());
    }
    let expected = match kind.takes_file() {
        true => "a folder, a file, or OWNER/NAME of a model on the hub",
        false => "a folder, or OWNER/NAME of a model on the hub",
    };
    let bad = |found: &str| {
        let given = given.display();
        Failure::BadInput(format!("{} {given}: expected {expected}, found {found}", kind.option()))
    };
    match given.to_str().filter(|text| is_name(text)) {
        _ if given.is_file() && kind.takes_file() => Ok(given.to_path_buf()),
        _ if given.is_file() => Err(bad("a file")),
        _ if given.exists() => Err(bad("a pipe or device")), // which would be waited for
        Some(name) => folder(kind.option(), name, Needed::Network(kind), quiet),
        None => Err(bad("nothing there")),
    }
}

/// The folder of the model `name`, with the files that are `needed`. Files that are not in the cache are fetched, with a progress
/// bar on a terminal unless `quiet`. `option` is the option that names the model, for messages.
///
/// # Errors
/// The model does not exist or is not an SDXL model, or the hub cannot be reached or sends an invalid answer.
pub fn folder(option: &str, name: &str, needed: Needed, quiet: bool) -> Result<PathBuf, Failure> {
    let asked = format!("{option} {name}");
    let Some(name) = ModelName::parse(name) else {
        return Err(Failure::BadInput(format!("{asked}: expected OWNER/NAME or OWNER/NAME@REVISION")));
    };
    let settings = HubSettings::from_env()?;
    let repo = Repo::new(&settings.cache, &name);
    let lacking = match repo.snapshot() {
        None => "not in the cache".to_owned(),
        Some(folder) => match problem_of(&folder, &repo, &name, needed, quiet) {
            None => return Ok(folder),
            Some(problem) => format!("not whole in the cache ({problem})"),
        },
    };
    if settings.offline {
        let problem = format!("no such folder, {lacking}, and HF_HUB_OFFLINE is set");
        return Err(Failure::BadInput(format!("{asked}: {problem}")));
    }
    let client = Client::new(&settings);
    let fetch = Fetch { client: &client, repo: &repo, name: &name, silence: settings.silence, quiet };
    fetched(&fetch, &asked, needed).map_err(|fault| match fault {
        Fault::Here(failure) => failure,
        Fault::Hub(problem) => {
            let is_there_none = matches!(problem, Problem::Refused(401 | 403 | 404));
            let failure = hub_failure(option, &name, &asked, &client, &lacking, problem);
            match (needed, is_there_none) {
                (Needed::Network(Kind::Upscaler), true) => failure.with(SWINIR),
                _ => failure,
            }
        }
    })
}

/// Fetches the needed files of the model's newest version, and returns the folder of that version. Messages begin with `asked`, the
/// option and its value.
fn fetched(fetch: &Fetch, asked: &str, needed: Needed) -> Result<PathBuf, Fault> {
    let name = fetch.name;
    let bad = |problem: String| Fault::Here(Failure::BadInput(format!("{asked}: {problem}")));
    let path = format!("/api/models/{}/revision/{}?blobs=true", name.repo, address::part(name.revision));
    let mut listing = Listing::parse(&fetch.patiently(|| fetch.client.text(&path))?, needed)?;
    if let Some(asked) = name.commit() {
        listing.pin(asked)?;
    }
    if let Some(problem) = lacks(&listing, needed) {
        return Err(bad(problem));
    }
    fetch.announce(listing.commit.as_ref(), &listing.files);
    let mut commit = listing.commit.clone();
    for file in &listing.files {
        commit = Some(fetch.file(commit.as_ref(), file)?);
        // Nothing large is fetched of a model that cannot be read.
        let may_lack = needed != Needed::Model || file.name != INDEX;
        if let (false, Some(network)) = (may_lack, listing.without_weights()) {
            return Err(bad(format!("{network}: expected weights as safetensors, found none")));
        }
    }
    let Some(commit) = commit else { return Err(bad("an empty listing".into())) };
    fetch.repo.set_newest(&commit)?;
    Ok(fetch.repo.folder(&commit))
}

/// Describes what a listing lacks, before anything is fetched.
fn lacks(listing: &Listing, needed: Needed) -> Option<String> {
    match needed {
        Needed::Vae => {
            let has_weights = listing.files.iter().any(|file| file.name.ends_with(".safetensors"));
            let problem = "expected a VAE in diffusers' layout, found no weights of one";
            (!has_weights).then(|| problem.to_owned())
        }
        Needed::Model | Needed::Configs => (!listing.has(INDEX))
            .then(|| format!("expected an SDXL model in diffusers' layout, found no {INDEX}")),
        Needed::Network(kind) => {
            let files = listing.files.iter().map(|file| file.name.as_str()).collect();
            kind.lacks(&files).map(|what| format!("expected {}, found no {what}", kind.described()))
        }
    }
}

/// Describes a missing or damaged file among those that a prediction reads. `None`: all are right.
fn problem_of(folder: &Path, repo: &Repo, name: &ModelName, needed: Needed, quiet: bool) -> Option<String> {
    let problem = match (needed, ModelFolder::open(folder)) {
        (Needed::Network(kind), _) => kind.problem_of(folder, &all_files(folder)),
        (Needed::Vae, _) => unreadable_vae(folder),
        (_, Ok(model)) => unreadable(&model, needed),
        (_, Err(e)) => Some(e.to_string()),
    };
    problem.or_else(|| damaged(folder, repo, name, needed, quiet))
}

/// Describes what is missing of a VAE, in the folder of a model or by itself.
fn unreadable_vae(folder: &Path) -> Option<String> {
    let inner = folder.join(Component::Vae.name());
    let folder = if inner.is_dir() { inner } else { folder.to_path_buf() };
    let weights = || Weights::open(&folder, Network::Vae, None, None).err().map(|e| e.to_string());
    VaeConfig::read(&folder).err().map(|e| e.to_string()).or_else(weights)
}

fn unreadable(model: &ModelFolder, needed: Needed) -> Option<String> {
    let configs = match model.configs() {
        Ok(configs) => configs,
        Err(e) => return Some(e.to_string()),
    };
    let scheduler = model.scheduler_config_path();
    let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
    if !fs::read_to_string(&scheduler).is_ok_and(|text| is_json(&text)) {
        return Some(format!("{}: missing or damaged", scheduler.display()));
    }
    let weights = |component| {
        let found = (needed == Needed::Model).then(|| model.weights(component, None, None).err());
        found.flatten().map(|e| e.to_string())
    };
    let first = configs.text_encoder.as_ref().map(|config| (Component::TextEncoder, config));
    for (component, config) in first.into_iter().chain([(Component::TextEncoder2, &configs.text_encoder_2)]) {
        let weights = weights(component);
        let tokenizer = || model.tokenizer(component, config).err().map(|e| e.to_string());
        if let Some(problem) = weights.or_else(tokenizer) {
            return Some(problem);
        }
    }
    [Component::UNet, Component::Vae].into_iter().find_map(weights)
}

/// Describes a file whose checksum differs from its name in the cache.
fn damaged(folder: &Path, repo: &Repo, name: &ModelName, needed: Needed, quiet: bool) -> Option<String> {
    let all = all_files(folder);
    let mut told = quiet;
    let wanted = listing::wanted(&all.iter().map(String::as_str).collect(), needed);
    let blobs = wanted.iter().filter_map(|file| Some((*file, repo.blob_of(&folder.join(file))?)));
    for (file, blob) in blobs {
        let is_large = fs::metadata(&blob).is_ok_and(|found| found.len() >= LARGE);
        if !told && is_large && repo.is_to_check(&blob) {
            output::note(&format!("{name}: checking its files in the cache, once"));
            told = true;
        }
        if !repo.is_right(&blob, None) {
            return Some(format!("{file}: damaged"));
        }
    }
    None
}

/// The files of a model's folder and of its direct subfolders, by their paths in the folder.
fn all_files(folder: &Path) -> BTreeSet<String> {
    let entries = |folder: &Path| -> Vec<String> {
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let mut all = BTreeSet::new();
    for entry in entries(folder) {
        all.extend(entries(&folder.join(&entry)).iter().map(|file| format!("{entry}/{file}")));
        all.insert(entry);
    }
    all
}

/// The message about a hub that does not deliver a model.
fn hub_failure(
    option: &str,
    name: &ModelName,
    asked: &str,
    client: &Client,
    lacking: &str,
    problem: Problem,
) -> Failure {
    let page = format!("{}/{}", client.shown(), name.repo);
    let bad = |what: String| Failure::BadInput(format!("{asked}: {what}"));
    let neither = "expected a folder or a model on the hub that may be read, found neither";
    let failed = |what: &str, advice: &str| {
        Failure::Failed(format!(
            "{asked}: no such folder, {lacking}, and not to be fetched ({what}): {advice}"
        ))
    };
    match problem {
        Problem::Refused(status @ (401 | 403)) if client.has_token() => bad(format!(
            "{neither} (status {status}): if it is gated, accept its licence at {page}; HF_TOKEN (or the token that is \
             saved) has to be of that account, and valid"
        )),
        Problem::Refused(status @ (401 | 403)) => bad(format!(
            "{neither} (status {status}): if it is private or gated, accept its licence at {page}, and set HF_TOKEN"
        )),
        Problem::Refused(404) => bad(format!("{neither} (status 404): {page} does not exist")),
        Problem::Refused(status) => {
            failed(&format!("status {status}"), &format!("give {option} a folder that has the model"))
        }
        Problem::Busy(429, _) => {
            failed("status 429, too many requests", "wait some minutes, or set HF_TOKEN")
        }
        Problem::Busy(status, _) => {
            failed(&format!("status {status}, a trouble of the hub"), "try again later")
        }
        Problem::Network(what) => {
            let advice = format!("connect to the network once, or give {option} a folder that has the model");
            failed(&what, &advice)
        }
        Problem::Invalid(what) => failed(
            &what,
            "the hub, or what answers in its place (HF_ENDPOINT, a proxy), sends what it must not",
        ),
    }
}
