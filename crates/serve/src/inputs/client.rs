//! An HTTP client for foreign URLs: of inputs and of webhooks.
//!
//! A name is resolved once for each connection, and the connection goes to an address that was checked. So a name that has another
//! address a moment later gains nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, RequestBuilder, Url};

use super::address::is_allowed;
use crate::error::{Error, Result};
use crate::tls;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a host may say nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// Looks up the addresses of a host.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;
/// Whether the service may connect to an address.
pub(super) type Allowed = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// A client that connects to public addresses alone, follows no redirect, and knows no proxy.
#[derive(Clone)]
pub struct CheckedClient {
    client: reqwest::Client,
    allowed: Allowed,
}

impl CheckedClient {
    /// A client. `with_private`: private addresses are allowed as well.
    ///
    /// # Errors
    /// TLS does not start.
    pub fn new(with_private: bool) -> Result<CheckedClient> {
        CheckedClient::with(Arc::new(move |address| is_allowed(address, with_private)), system_lookup())
    }

    /// A client that sends files: hosts answer when they have all of them.
    ///
    /// # Errors
    /// TLS does not start.
    pub fn for_uploads(with_private: bool) -> Result<CheckedClient> {
        let allowed: Allowed = Arc::new(move |address| is_allowed(address, with_private));
        CheckedClient::built(allowed, system_lookup(), None)
    }

    /// A client with rules of its own.
    pub(super) fn with(allowed: Allowed, lookup: Lookup) -> Result<CheckedClient> {
        CheckedClient::built(allowed, lookup, Some(SILENCE))
    }

    /// `silence`: how long a host may say nothing.
    fn built(allowed: Allowed, lookup: Lookup, silence: Option<Duration>) -> Result<CheckedClient> {
        // A proxy would look up names itself, and reach what the service must not. Redirects would go unchecked.
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config()?)
            .dns_resolver(Arc::new(CheckedResolver { lookup, allowed: allowed.clone() }))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .user_agent(concat!("calotype/", env!("CARGO_PKG_VERSION")));
        let client = match silence {
            Some(silence) => client.read_timeout(silence),
            None => client,
        };
        let client = client.build().map_err(|e| Error::Settings(format!("HTTP client: {e}")))?;
        Ok(CheckedClient { client, allowed })
    }

    /// A request to a foreign URL.
    ///
    /// # Errors
    /// The URL is not one of `http` or `https`, or names an address that is not allowed. The error is one line.
    pub fn request(&self, method: Method, url: &str) -> std::result::Result<RequestBuilder, String> {
        Ok(self.client.request(method, self.check_url(url)?))
    }

    /// Checks a URL as [`Self::request`] does.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn check_url(&self, url: &str) -> std::result::Result<Url, String> {
        let url = Url::parse(url).map_err(|e| format!("not a URL: {e}"))?;
        self.check(&url)?;
        Ok(url)
    }

    /// Checks what can be checked without a look at names: the scheme, and an address in place of a name, which no resolver sees.
    fn check(&self, url: &Url) -> std::result::Result<(), String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("expected an http or https URL, found {}:", url.scheme()));
        }
        // The parser has turned decimal, octal and hexadecimal forms into addresses.
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match address {
            Ok(address) if !(self.allowed)(address) => Err(not_allowed(host)),
            _ => Ok(()),
        }
    }
}

/// The system's resolver.
fn system_lookup() -> Lookup {
    Arc::new(|host| {
        Box::pin(async move {
            Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
        })
    })
}

fn not_allowed(host: &str) -> String {
    format!("{host} is not on the public internet; the service does not connect to private addresses")
}

/// Finds the addresses of names, and keeps those that are allowed.
struct CheckedResolver {
    lookup: Lookup,
    allowed: Allowed,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, allowed) = ((self.lookup)(name.as_str().to_string()), self.allowed.clone());
        Box::pin(async move {
            let found = found.await?;
            let kept: Vec<SocketAddr> = found
                .iter()
                .filter(|address| allowed(**address))
                .map(|address| SocketAddr::new(*address, 0))
                .collect();
            if kept.is_empty() && !found.is_empty() {
                return Err(not_allowed(name.as_str()).into());
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

/// The cause of a failed request: the last of its chain of errors, on one line.
pub fn cause(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let cause = last.to_string().replace(char::is_control, " ");
    if error.is_timeout() { format!("no answer in time ({cause})") } else { cause }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use reqwest::Method;
    use reqwest::dns::Resolve;

    use super::{Allowed, CheckedClient, CheckedResolver, Lookup};
    use crate::inputs::address::is_allowed;

    /// A resolver that gives one answer after the other.
    fn changing(answers: &'static [&'static str]) -> (Lookup, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let lookup: Lookup = Arc::new(move |_| {
            let answer = answers[counter.fetch_add(1, Ordering::Relaxed)];
            Box::pin(async move { Ok(answer.split(' ').map(|ip| ip.parse().unwrap()).collect()) })
        });
        (lookup, asked)
    }

    /// Protects: an address in any spelling that browsers know is checked, and no scheme but http and https passes.
    #[test]
    fn urls_that_are_refused() {
        let client = CheckedClient::new(false).unwrap();
        let urls = [
            "http://169.254.169.254/latest/meta-data/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]:8000/",
            "http://0.0.0.0/",
            "http://0/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://017700000001/",
            "https://user:pass@10.0.0.1/",
            "http://１２７.０.０.１/",
            "http://127.0.0.1./",
            "file:///etc/passwd",
            "ftp://1.1.1.1/",
            "gopher://1.1.1.1/",
            "data:,x",
            "http://",
            "//1.1.1.1/",
            "http://[fe80::1%25eth0]/",
            "http://1.1.1.1:99999/",
        ];
        for url in urls {
            assert!(client.request(Method::GET, url).is_err(), "{url}");
        }
        for url in
            ["http://1.1.1.1:8080/", "https://[2606:4700::1111]/", "http://localhost/", "HTTP://example.com"]
        {
            assert!(client.request(Method::GET, url).is_ok(), "{url}");
        }
    }

    /// Protects: the answer that is checked is the answer that is used: a second one, private this time, is refused.
    #[tokio::test]
    async fn names_that_change() {
        let (lookup, asked) =
            changing(&["1.1.1.1", "127.0.0.1", "10.0.0.1 1.0.0.1", "::ffff:169.254.169.254"]);
        let allowed: Allowed = Arc::new(|address| is_allowed(address, false));
        let resolver = CheckedResolver { lookup, allowed };
        let resolve = async || {
            let found =
                resolver.resolve("changing.example".parse().unwrap()).await.map_err(|e| e.to_string())?;
            Ok::<Vec<IpAddr>, String>(found.map(|address| address.ip()).collect())
        };
        assert_eq!(resolve().await, Ok(vec!["1.1.1.1".parse().unwrap()]));
        assert!(resolve().await.unwrap_err().starts_with("changing.example is not on the public internet"));
        assert_eq!(
            resolve().await,
            Ok(vec!["1.0.0.1".parse().unwrap()]),
            "the private one of two is left out"
        );
        assert!(resolve().await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }
}
