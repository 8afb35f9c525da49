//! The environment's settings of the hub: the variables of the hub's own library, in its order and with its defaults.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;

const ENDPOINT: &str = "https://huggingface.co";
/// Seconds, as in the hub's own library.
const PATIENCE: f64 = 10.0;

/// The hub's address, its cache, and how to connect.
#[derive(Debug)]
pub struct HubSettings {
    /// Without a trailing `/`.
    pub endpoint: String,
    pub cache: PathBuf,
    pub token: Option<String>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// The longest time until the hub begins an answer.
    pub answer: Duration,
    /// The longest time that a connection may be silent within a file.
    pub silence: Duration,
}

impl HubSettings {
    /// # Errors
    /// A variable has an invalid value.
    pub fn from_env() -> Result<HubSettings, Failure> {
        HubSettings::read(&|name| env::var_os(name).filter(|value| !value.is_empty()), dirs::home_dir())
    }

    /// `var` returns a variable that is set and not empty.
    fn read(var: &dyn Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<HubSettings, Failure> {
        let path = |name: &str| var(name).map(|value| expanded(PathBuf::from(value), home.as_deref()));
        let caches = path("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")));
        let hub_home = path("HF_HOME").or_else(|| Some(caches?.join("huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let Some(cache) = cache.or_else(|| Some(hub_home.as_ref()?.join("hub"))) else {
            return Err(Failure::Failed("no home folder: set HF_HUB_CACHE to a folder for models".into()));
        };
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(hub_home?.join("token")));
        Ok(HubSettings {
            endpoint: endpoint(var)?,
            cache,
            token: token(var, token_file)?,
            offline: flag(var, "HF_HUB_OFFLINE")? || flag(var, "TRANSFORMERS_OFFLINE")?,
            answer: seconds(var, "HF_HUB_ETAG_TIMEOUT")?,
            silence: seconds(var, "HF_HUB_DOWNLOAD_TIMEOUT")?,
        })
    }
}

fn wrong(name: &str, expected: &str, found: &str) -> Failure {
    let found: String = found.chars().take(80).collect();
    Failure::BadInput(format!("{name}: expected {expected}, found {found:?}"))
}

/// Expands `~/models` to a folder in the user's home.
fn expanded(path: PathBuf, home: Option<&std::path::Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

fn text(var: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Option<String> {
    var(name).map(|value| value.to_string_lossy().trim().to_owned()).filter(|value| !value.is_empty())
}

fn endpoint(var: &dyn Fn(&str) -> Option<OsString>) -> Result<String, Failure> {
    let given = text(var, "HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
    let uri = given.parse::<ureq::http::Uri>().ok();
    let fits = uri.is_some_and(|uri| {
        uri.host().is_some() && uri.query().is_none() && matches!(uri.scheme_str(), Some("http" | "https"))
    });
    match fits {
        true => Ok(given.trim_end_matches('/').to_owned()),
        false => Err(wrong("HF_ENDPOINT", "an address such as https://huggingface.co", &given)),
    }
}

/// The token of the environment, or else the one that the hub's own tools have saved.
fn token(var: &dyn Fn(&str) -> Option<OsString>, file: Option<PathBuf>) -> Result<Option<String>, Failure> {
    let given = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| text(var, name));
    let saved = || fs::read_to_string(file?).ok().map(|token| token.trim().to_owned());
    let token = given.or_else(saved).filter(|token| !token.is_empty());
    match token {
        // Not shown, because even a damaged token is a secret.
        Some(token) if !token.chars().all(|c| c.is_ascii_graphic()) => {
            Err(Failure::BadInput("HF_TOKEN: expected letters and digits, found other characters".into()))
        }
        token => Ok(token),
    }
}

fn flag(var: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Result<bool, Failure> {
    let Some(given) = text(var, name) else { return Ok(false) };
    match given.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Ok(true),
        "0" | "off" | "no" | "false" => Ok(false),
        _ => Err(wrong(name, "1 or 0", &given)),
    }
}

fn seconds(var: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Result<Duration, Failure> {
    let Some(given) = text(var, name) else { return Ok(Duration::from_secs_f64(PATIENCE)) };
    match given.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(wrong(name, "seconds, more than 0", &given)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<HubSettings, Failure> {
        let var = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).into());
        HubSettings::read(&var, Some("/home/me".into()))
    }

    /// Protects the cache's place: the same as for the hub's own library, so that nothing is fetched twice.
    #[test]
    fn caches_in_their_order() {
        let all = [
            ("HF_HUB_CACHE", "/a", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "~/b", "/home/me/b"),
            ("HF_HOME", "/c", "/c/hub"),
            ("XDG_CACHE_HOME", "/d", "/d/huggingface/hub"),
            ("NOTHING", "", "/home/me/.cache/huggingface/hub"),
        ];
        for first in 0..all.len() {
            let set: Vec<(&str, &str)> =
                all[first..].iter().map(|(name, value, _)| (*name, *value)).collect();
            assert_eq!(read(&set).expect("right").cache, PathBuf::from(all[first].2));
        }
    }

    /// Protects invalid values: they are refused by name, and a token is not shown.
    #[test]
    fn values_that_cannot_be() {
        for (name, value) in [
            ("HF_ENDPOINT", "huggingface.co"),
            ("HF_ENDPOINT", "ftp://huggingface.co"),
            ("HF_HUB_OFFLINE", "maybe"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
            ("HF_HUB_ETAG_TIMEOUT", "ten"),
            ("HF_TOKEN", "a\nb: c"),
        ] {
            let line = read(&[(name, value)]).expect_err("refused").line();
            assert!(line.contains(name), "{line}");
            assert!(name != "HF_TOKEN" || !line.contains("b: c"), "{line}");
        }
        let right = read(&[("HF_ENDPOINT", "http://mirror:8080/hub/"), ("HF_HUB_OFFLINE", "YES")]);
        let right = right.expect("right");
        assert_eq!((right.endpoint.as_str(), right.offline), ("http://mirror:8080/hub", true));
    }

    /// Protects the token: one that the hub's tools have saved is found, and one in the environment comes first.
    #[test]
    fn tokens() {
        let here = tempfile::tempdir().expect("a directory");
        fs::write(here.path().join("token"), "hf_saved\n").expect("written");
        let home = here.path().to_str().expect("text");
        let token = |set: &[(&str, &str)]| read(set).expect("right").token;
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_saved"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " hf_mine ")]).as_deref(), Some("hf_mine"));
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
    }
}
