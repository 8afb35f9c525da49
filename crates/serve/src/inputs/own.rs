//! URLs of the service itself: outputs and uploads. They are read from the storage; the service does not ask itself over HTTP, and no check
//! of addresses applies.

use reqwest::Url;

use super::{Problem, StoredFile};
use crate::queue::Queue;
use crate::storage::Links;

/// What a message says of a file that is not there any more.
pub(super) const GONE: &str = "no such file here; files end with their retention";

/// A URL of the service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// `/outputs/{key}?signature=…`
    Output { key: String, signature: String },
    /// `/v1/files/{id}`, or its download.
    File { id: String },
}

/// Finds out whether a URL is one of the service, whatever host it has: the service has several names, and a worker knows none of them.
/// The signature of an output and the id of a file cannot be guessed.
pub(super) fn parse(url: &str) -> Option<Own> {
    let is_path = url.starts_with('/') && !url.starts_with("//");
    let url =
        if is_path { Url::parse("http://localhost").ok()?.join(url).ok()? } else { Url::parse(url).ok()? };
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    if let Some((_, key)) = url.path().split_once("/outputs/") {
        let signature =
            url.query_pairs().find(|(name, _)| name == "signature").map(|(_, value)| value.into_owned());
        let signature = signature.filter(|s| s.len() == 64 || is_path)?;
        return Some(Own::Output { key: key.into(), signature });
    }
    let id = url.path().split_once("/v1/files/")?.1;
    let id = id.strip_suffix("/download").unwrap_or(id);
    let is_id = id.len() == 26 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (is_id || is_path).then(|| Own::File { id: id.into() })
}

impl Own {
    /// Checks what needs no look at the database: the signature of an output.
    pub(super) fn check(&self, links: &Links) -> Result<(), String> {
        match self {
            Own::Output { key, signature } if !links.check(key, signature) => {
                Err(format!("/outputs/{key}: the signature is not the service's"))
            }
            Own::Output { .. } | Own::File { .. } => Ok(()),
        }
    }

    /// The storage key and the name of the file.
    pub(super) async fn find(self, links: &Links, queue: &Queue) -> Result<(String, String), Problem> {
        self.check(links).map_err(Problem::Client)?;
        match self {
            Own::Output { key, .. } => {
                let name = key.rsplit('/').next().unwrap_or_default().to_string();
                Ok((key, name))
            }
            Own::File { id } => {
                let file = StoredFile::find(queue, &id).await.map_err(Problem::Ours)?;
                let file = file.ok_or_else(|| Problem::Client(format!("/v1/files/{id}: {GONE}")))?;
                Ok((file.key, file.name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Own, parse};

    /// Protects: own URLs are known by their path and signature, under any host and prefix; others are not taken for own ones.
    #[test]
    fn own_urls() {
        let signature = "0".repeat(64);
        let id = "abcdefghijklmnopqrstuvwx01";
        let output = || Some(Own::Output { key: "jobs/a/1/out-0.png".into(), signature: signature.clone() });
        for base in ["", "http://127.0.0.1:5000", "https://x.example/calotype"] {
            assert_eq!(parse(&format!("{base}/outputs/jobs/a/1/out-0.png?signature={signature}")), output());
            for end in ["", "/download?owner=a&expiry=1&signature=x"] {
                assert_eq!(parse(&format!("{base}/v1/files/{id}{end}")), Some(Own::File { id: id.into() }));
            }
        }
        let foreign = [
            "https://x.example/outputs/a.png",
            "https://x.example/outputs/a.png?signature=1",
            "https://x.example/v1/files/a.png",
            "https://x.example/a.png",
            "//x.example/v1/files/abcdefghijklmnopqrstuvwx01",
            "/etc/passwd",
            "file:///v1/files/abcdefghijklmnopqrstuvwx01",
        ];
        for url in foreign {
            assert_eq!(parse(url), None, "{url}");
        }
    }
}
