//! Requests to the hub: one request, its redirects, and the hub's headers about a file.

use std::io::Read;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::address::{joined, origin};
use super::names::{Commit, Tag};
use super::pace::{self, paced};
use super::settings::HubSettings;

/// The most redirects. The real hub has one or two.
const MAX_HOPS: usize = 10;
/// The most bytes of a model's listing. Real ones have about 100 kB.
const MAX_LISTING: u64 = 16 << 20;

/// The reason why there is no usable answer.
#[derive(Debug)]
pub enum Problem {
    /// A network error, which may be temporary.
    Network(String),
    /// A temporary status (429, 5xx), and the seconds after which to ask again, if the hub gives them.
    Busy(u16, Option<u64>),
    /// Any other status.
    Refused(u16),
    /// An invalid answer of the hub.
    Invalid(String),
}

/// The hub's headers about a file.
#[derive(Debug, Default)]
pub struct About {
    pub tag: Option<Tag>,
    /// Whether the tag is that of a large file stored elsewhere. No other tag replaces it.
    is_linked: bool,
    pub commit: Option<Commit>,
    /// The size of the whole file, in bytes.
    pub size: Option<u64>,
}

/// An answer whose body has not been read yet.
pub struct Answer {
    pub about: About,
    /// The offset in the file at which the body begins.
    pub start: u64,
    pub body: Box<dyn Read>,
}

/// The authorities whose certificates are trusted. They are those of the system, to which a company adds the one of its own proxy, or those that
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` name. An empty container has no authorities: there the client trusts those that the binary carries.
fn authorities() -> RootCerts {
    let found = rustls_native_certs::load_native_certs().certs;
    match found.is_empty() {
        true => RootCerts::WebPki,
        false => found.iter().map(|found| Certificate::from_der(found).to_owned()).collect::<Vec<_>>().into(),
    }
}

/// A hub, the token for this hub only, and the time to wait for an answer.
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    answer: Duration,
}

impl Client {
    pub fn new(settings: &HubSettings) -> Client {
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(authorities()).build())
            .user_agent(concat!("calotype/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0) // redirects are checked and followed in `get`
            .max_redirects_will_error(false)
            .timeout_resolve(Some(settings.answer))
            .timeout_connect(Some(settings.answer))
            .timeout_recv_response(Some(settings.answer))
            .timeout_per_read(Some(settings.silence));
        Client {
            agent: config.build().new_agent(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            answer: settings.answer,
        }
    }

    /// The hub's address for messages, without a user name and password.
    pub fn shown(&self) -> String {
        let (scheme, host, port) = origin(&self.endpoint).unwrap_or_default();
        match (scheme.as_str(), port) {
            ("http", 80) | ("https", 443) => format!("{scheme}://{host}"),
            _ => format!("{scheme}://{host}:{port}"),
        }
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Reads a short text at `path` of the hub.
    pub fn text(&self, path: &str) -> Result<String, Problem> {
        let mut answer = self.get(path, 0)?;
        let mut bytes = Vec::new();
        let mut body = paced(answer.body.by_ref().take(MAX_LISTING + 1), Some(pace::SHORT));
        let read = body.read_to_end(&mut bytes);
        read.map_err(|e| Problem::Network(self.network_error(&e.to_string())))?;
        if bytes.len() as u64 > MAX_LISTING {
            return Err(Problem::Invalid(format!("expected at most {MAX_LISTING} bytes, found more")));
        }
        String::from_utf8(bytes).map_err(|_| Problem::Invalid("expected text, found other bytes".into()))
    }

    /// Requests `path` of the hub, from byte `start` on if the hub supports it, or else from the beginning.
    pub fn get(&self, path: &str, start: u64) -> Result<Answer, Problem> {
        let own = origin(&self.endpoint);
        let mut address = format!("{}{path}", self.endpoint);
        let mut about = About::default();
        for _ in 0..=MAX_HOPS {
            let to_hub = origin(&address) == own;
            let response = self.ask(&address, to_hub, start)?;
            if to_hub {
                about = described_by(response.headers(), about, true)?;
            }
            match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => {
                    let location = header(response.headers(), "location");
                    let next = location.and_then(|location| joined(&address, location));
                    address =
                        next.ok_or_else(|| wrong("a redirect", "to an address of the web", location))?;
                }
                200 | 206 | 416 => return answer(response, about, start),
                status @ (408 | 429 | 500..=599) => {
                    let after = header(response.headers(), "retry-after").and_then(|text| text.parse().ok());
                    return Err(Problem::Busy(status, after));
                }
                status => return Err(Problem::Refused(status)),
            }
        }
        Err(Problem::Invalid(format!("expected at most {MAX_HOPS} redirects, found more")))
    }

    /// Sends one request. Compression is declined, because parts of a compressed file cannot be continued.
    fn ask(&self, address: &str, to_hub: bool, start: u64) -> Result<Response<Body>, Problem> {
        let mut request = self.agent.get(address).header("accept-encoding", "identity");
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| to_hub) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|e| Problem::Network(self.network_error(&e.to_string())))
    }

    /// The text of a network error.
    fn network_error(&self, error: &str) -> String {
        match error.contains("timeout") || error.contains("timed out") {
            true => format!("no answer within {:?}", self.answer),
            false => error.to_owned(),
        }
    }
}

/// The answer's body, and the offset at which it begins.
fn answer(response: Response<Body>, mut about: About, start: u64) -> Result<Answer, Problem> {
    if about.tag.is_none() {
        about = described_by(response.headers(), about, false)?;
    }
    let status = response.status().as_u16();
    let headers = response.headers();
    let length = header(headers, "content-length").and_then(|text| text.parse::<u64>().ok());
    let range = header(headers, "content-range");
    let zipped = match header(headers, "content-encoding").map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => false,
        Some("gzip" | "x-gzip") if status == 200 => true,
        other => return Err(wrong("Content-Encoding", "identity", other)),
    };
    let (begins, total) = match (status, range.and_then(content_range)) {
        (200, _) => (0, length.filter(|_| !zipped)),
        (206, Some((first, total))) if first == start => (first, total),
        (206, _) => return Err(wrong("Content-Range", &format!("bytes {start}-"), range)),
        _ => return Err(Problem::Refused(status)),
    };
    about.size = about.size.or(total);
    let body = paced(response.into_body().into_with_config().limit(u64::MAX).reader(), None);
    let body: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(body)) } else { Box::new(body) };
    Ok(Answer { about, start: begins, body })
}

/// Adds the headers of an answer to earlier ones. For large files, which are stored elsewhere, the hub has headers of its own.
fn described_by(headers: &HeaderMap, before: About, by_hub: bool) -> Result<About, Problem> {
    let linked = header(headers, "x-linked-etag").filter(|_| by_hub);
    let own = header(headers, "etag").filter(|_| !before.is_linked);
    let tag = linked.or(own).map(Tag::parse).transpose();
    let tag = tag.map_err(|found| wrong("ETag", "1 to 128 letters, digits, - and _", Some(&found)))?;
    let commit = header(headers, "x-repo-commit").filter(|_| by_hub).map(Commit::parse).transpose();
    let commit = commit.map_err(|found| wrong("X-Repo-Commit", "4 to 64 hex digits", Some(&found)))?;
    let size = header(headers, "x-linked-size").filter(|_| by_hub).and_then(|text| text.parse().ok());
    let is_linked = before.is_linked || linked.is_some();
    Ok(About {
        tag: tag.or(before.tag),
        is_linked,
        commit: commit.or(before.commit),
        size: size.or(before.size),
    })
}

/// The text of a header. Text that is not valid counts as empty.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().trim())
}

fn wrong(what: &str, expected: &str, found: Option<&str>) -> Problem {
    let found = found.map(|text| format!("{:?}", text.chars().take(80).collect::<String>()));
    Problem::Invalid(format!("{what}: expected {expected}, found {}", found.as_deref().unwrap_or("none")))
}

/// `bytes 5-9/10` → the first byte, and the size of the whole file if it is given.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the parsing of a part's range.
    #[test]
    fn parts() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for wrong in ["bytes */10", "bytes 5", "items 5-9/10", "bytes -1-9/10", ""] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
