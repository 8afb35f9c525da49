//! The names under which a service without tokens is reached.
//!
//! A website can give its own name the address of a visitor's machine. For the browser, the service is then a part of the website. Only the
//! name in the request tells of it: without tokens, a service answers to names alone that no website can have.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, StatusCode, Uri, header};
use reqwest::Url;

use super::refusal::Refusal;
use crate::settings::Settings;

/// Checks the host that a request names.
///
/// # Errors
/// The host is a name that a website may have, and that the settings do not name.
pub fn check(settings: &Settings, target: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let hosts = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("no.ascii"));
    // A target may be a whole URL, whose host then counts.
    let hosts = hosts.chain(target.authority().map(|authority| authority.as_str()));
    for host in hosts {
        if !is_known(settings, host) {
            let message = format!(
                "Host {}: without --token-file, the service answers to IP addresses, localhost, names without a dot and names below .internal; name \
                 this host with --public-url, or use tokens",
                name_of(host)
            );
            return Err(Refusal::new(StatusCode::FORBIDDEN, message));
        }
    }
    Ok(())
}

/// Whether no website can have the name, or the operator has named it.
fn is_known(settings: &Settings, host: &str) -> bool {
    let name = name_of(host);
    let bare = name.strip_suffix('.').unwrap_or(name);
    // Public names have a dot, and none is below `localhost` or `internal`: a container reaches its host as `host.docker.internal`.
    let is_local = !bare.contains('.') || ["localhost", "internal"].iter().any(|top| is_below(bare, top));
    let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_address =
        bare.parse::<IpAddr>().is_ok() || in_brackets.is_some_and(|name| name.parse::<Ipv6Addr>().is_ok());
    let urls = settings.public_url.iter().chain(&settings.cors);
    let mut named = urls.filter_map(|url| Url::parse(url).ok());
    is_local
        || is_address
        // Then any website may use the service.
        || settings.cors.iter().any(|origin| origin == "*")
        || named.any(|url| url.host_str().is_some_and(|named| named.eq_ignore_ascii_case(bare)))
}

fn is_below(name: &str, top: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(top))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects visitors of websites that take the address of the visitor's machine, and operators who reach a service by the names that it has.
    #[test]
    fn hosts() {
        let mut settings = Settings::in_folder("");
        settings.public_url = Some("https://sdxl.example/base".into());
        settings.cors = vec!["https://app.example:8443".into()];
        for (host, known) in [
            ("127.0.0.1:5000", true),
            ("127.0.0.1", true),
            ("192.168.1.7:5000", true),
            ("[::1]:5000", true),
            ("[fd00::1]", true),
            ("localhost", true),
            ("LOCALHOST:5000", true),
            ("localhost.:5000", true),
            ("sdxl.localhost:5000", true),
            ("gpu-box:5000", true),
            ("host.docker.internal:5000", true),
            ("host.containers.internal", true),
            ("internal.evil.example", false),
            ("evil-internal.example", false),
            ("", true),
            ("sdxl.example", true),
            ("SDXL.example:443", true),
            ("app.example", true),
            ("evil.example", false),
            ("evil.example:5000", false),
            ("evil.example.", false),
            ("127.0.0.1.evil.example:5000", false),
            ("localhost.evil.example", false),
            ("evil-localhost.example", false),
            ("sdxl.example.evil.example", false),
            ("[::1].evil.example", false),
            ("sdxl.default.svc", false),
            ("evil.example:5000:1", false),
            ("me@evil.example:5000", false),
        ] {
            assert_eq!(is_known(&settings, host), known, "{host}");
        }
        settings.cors = vec!["*".into()];
        assert!(is_known(&settings, "evil.example"));
    }
}
