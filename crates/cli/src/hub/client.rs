//! Asking the hub: one request, the redirects that follow it, and what the hub says of a file on the way.

use std::io::Read;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::address::{joined, origin};
use super::names::{Commit, Tag};
use super::pace::{self, paced};
use super::settings::HubSettings;

/// Redirects that are followed: the real hub has one or two.
const MAX_HOPS: usize = 10;
/// A model's listing is some 100 kB.
const MAX_LISTING: u64 = 16 << 20;

/// Why there is no answer, or none to use.
#[derive(Debug)]
pub enum Problem {
    /// The network: it may work another time.
    Line(String),
    /// A status that passes (429, 5xx), and after how many seconds to ask again if the hub says so.
    Busy(u16, Option<u64>),
    /// Any other status.
    Refused(u16),
    /// What a hub must not say.
    Wrong(String),
}

/// What the hub says of a file.
#[derive(Debug, Default)]
pub struct About {
    pub tag: Option<Tag>,
    /// Whether that is the one of a large file that lies elsewhere, which no other takes the place of.
    is_linked: bool,
    pub commit: Option<Commit>,
    /// Bytes of the whole file.
    pub size: Option<u64>,
}

/// An answer, of which the body has yet to come.
pub struct Answer {
    pub about: About,
    /// Which byte the body begins with.
    pub start: u64,
    pub body: Box<dyn Read>,
}

/// A hub, the token that is for it alone, and how long it is waited for.
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    answer: Duration,
}

impl Client {
    pub fn new(settings: &HubSettings) -> Client {
        let config = Agent::config_builder()
            .user_agent(concat!("calotype/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0) // which are followed here, each looked at
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

    /// The hub's address to be shown: without a name and password that it may have.
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

    /// A short text at `path` of the hub.
    pub fn text(&self, path: &str) -> Result<String, Problem> {
        let mut answer = self.get(path, 0)?;
        let mut bytes = Vec::new();
        let mut body = paced(answer.body.by_ref().take(MAX_LISTING + 1), Some(pace::SHORT));
        let read = body.read_to_end(&mut bytes);
        read.map_err(|e| Problem::Line(self.said(&e.to_string())))?;
        if bytes.len() as u64 > MAX_LISTING {
            return Err(Problem::Wrong(format!("expected at most {MAX_LISTING} bytes, found more")));
        }
        String::from_utf8(bytes).map_err(|_| Problem::Wrong("expected text, found other bytes".into()))
    }

    /// What is at `path` of the hub, from its byte `start` on if the hub can do that, else from its beginning.
    pub fn get(&self, path: &str, start: u64) -> Result<Answer, Problem> {
        let own = origin(&self.endpoint);
        let mut address = format!("{}{path}", self.endpoint);
        let mut about = About::default();
        for _ in 0..=MAX_HOPS {
            let to_hub = origin(&address) == own;
            let response = self.ask(&address, to_hub, start)?;
            if to_hub {
                about = said_by(response.headers(), about, true)?;
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
        Err(Problem::Wrong(format!("expected at most {MAX_HOPS} redirects, found more")))
    }

    /// One request. Parts of a zipped file are of no use, so that none is asked for.
    fn ask(&self, address: &str, to_hub: bool, start: u64) -> Result<Response<Body>, Problem> {
        let mut request = self.agent.get(address).header("accept-encoding", "identity");
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| to_hub) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|e| Problem::Line(self.said(&e.to_string())))
    }

    /// An error of the network, with what to set if the hub is slow.
    fn said(&self, error: &str) -> String {
        match error.contains("timeout") || error.contains("timed out") {
            true => format!("no answer within {:?}", self.answer),
            false => error.to_owned(),
        }
    }
}

/// The answer's body from the byte where it begins.
fn answer(response: Response<Body>, mut about: About, start: u64) -> Result<Answer, Problem> {
    if about.tag.is_none() {
        about = said_by(response.headers(), about, false)?;
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

/// What these headers say of the file, and what was said of it before. Of a large file, which lies elsewhere, the hub
/// says so in names of its own.
fn said_by(headers: &HeaderMap, before: About, by_hub: bool) -> Result<About, Problem> {
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

/// A header's text. What is no text is as good as missing, but for a tag, of which an empty one is refused.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().trim())
}

fn wrong(what: &str, expected: &str, found: Option<&str>) -> Problem {
    let found = found.map(|text| format!("{:?}", text.chars().take(80).collect::<String>()));
    Problem::Wrong(format!("{what}: expected {expected}, found {}", found.as_deref().unwrap_or("none")))
}

/// `bytes 5-9/10` → the first byte, and the whole file's size where that is said.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: which part of a file an answer says that it is.
    #[test]
    fn parts() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for wrong in ["bytes */10", "bytes 5", "items 5-9/10", "bytes -1-9/10", ""] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
