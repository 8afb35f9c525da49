//! Addresses on the hub, and redirects.

use ureq::http::Uri;

/// Scheme, host and port of an address. The token is sent to the hub's own origin only.
pub fn origin(address: &str) -> Option<(String, String, u16)> {
    let uri: Uri = address.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = match (scheme.as_str(), uri.port_u16()) {
        (_, Some(port)) => port,
        ("http", None) => 80,
        ("https", None) => 443,
        _ => return None,
    };
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// The address to which `location` redirects from `address`. `None`: the address is not on the web, or leaves TLS.
pub fn joined(address: &str, location: &str) -> Option<String> {
    let from: Uri = address.parse().ok()?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let is_scheme = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let to = if location.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme)) {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let (to_scheme, ..) = origin(&to)?;
    (to_scheme == scheme || to_scheme == "https").then_some(to)
}

/// A path with percent-encoding of special characters, such as `%20`.
pub fn encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    path.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A text as one part of a path: its slashes are encoded too.
pub fn part(text: &str) -> String {
    encoded(text).replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the token: an origin is the same only if scheme, host and port are.
    #[test]
    fn origins() {
        let hub = origin("https://hub.example/a/b");
        assert_eq!(hub, origin("https://HUB.example:443/"));
        for other in [
            "http://hub.example/",
            "https://hub.example:8443/",
            "https://hub.example.evil/",
            "https://hub.example@evil/",
            "https://cdn.hub.example/",
        ] {
            assert_ne!(hub, origin(other), "{other}");
        }
    }

    /// Protects redirects of every form, and that none leads out of the web.
    #[test]
    fn redirects() {
        let from = "https://hub.example/a/b?c";
        for (location, to) in [
            ("https://cdn.example/x", Some("https://cdn.example/x")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/x?y=http://z", Some("https://hub.example/x?y=http://z")),
            ("x", Some("https://hub.example/a/x")),
            ("http://cdn.example/x", None),
            ("file:///etc/passwd", None),
            ("https://", None),
        ] {
            assert_eq!(joined(from, location).as_deref(), to, "{location}");
        }
        assert_eq!(encoded("a/b c%.json"), "a/b%20c%25.json");
        assert_eq!(part("refs/pr/1"), "refs%2Fpr%2F1");
    }
}
