//! Signed URLs: who has one may read one file, with a token or without.
//!
//! Clients send their tokens to output URLs or do not, and some follow no redirect. So the service answers 200 on its own origin.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Makes and checks signatures.
#[derive(Clone)]
pub struct Links {
    secret: [u8; 32],
}

impl Links {
    /// Signatures with a secret, which all processes of a service share.
    pub fn new(secret: [u8; 32]) -> Links {
        Links { secret }
    }

    /// The URL of a stored object, which is valid for as long as the object is there. `base` is the service's URL; with an empty
    /// one the URL is relative to the origin.
    pub fn url(&self, base: &str, key: &str) -> String {
        let signature = hex(&self.mac(&["output", key]).finalize().into_bytes());
        format!("{}/outputs/{key}?signature={signature}", base.trim_end_matches('/'))
    }

    /// Whether a signature is the one of a key.
    pub fn check(&self, key: &str, signature: &str) -> bool {
        // In constant time.
        unhex(signature).is_some_and(|given| self.mac(&["output", key]).verify_slice(&given).is_ok())
    }

    /// The URL that downloads an uploaded file until `expiry`, in seconds since 1970.
    pub fn file_url(&self, base: &str, owner: &str, id: &str, expiry: i64) -> String {
        let signature =
            STANDARD.encode(self.file_mac(owner, id, &expiry.to_string()).finalize().into_bytes());
        let (owner, signature) = (escape(owner), escape(&signature));
        format!(
            "{}/v1/files/{id}/download?owner={owner}&expiry={expiry}&signature={signature}",
            base.trim_end_matches('/')
        )
    }

    /// Whether a signature is the one of a download, regardless of the time.
    pub fn check_file(&self, owner: &str, id: &str, expiry: &str, signature: &str) -> bool {
        let given = STANDARD.decode(signature);
        given.is_ok_and(|given| self.file_mac(owner, id, expiry).verify_slice(&given).is_ok())
    }

    fn file_mac(&self, owner: &str, id: &str, expiry: &str) -> Hmac<Sha256> {
        self.mac(&["file", &format!("{owner} {id} {expiry}")])
    }

    /// The sum over parts, none of which can be taken for another: keys and names have no line feeds.
    fn mac(&self, parts: &[&str]) -> Hmac<Sha256> {
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(part.as_bytes());
            mac.update(b"\n");
        }
        mac
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A text as a value of a query.
fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::Links;

    /// Protects: a signature opens one key alone, and only with the secret that made it.
    #[test]
    fn a_signature_is_for_one_key() {
        let links = Links::new([7; 32]);
        let url = links.url("https://x.example/", "jobs/a/1/out-0.png");
        let (path, signature) = url.split_once("?signature=").unwrap();
        assert_eq!(path, "https://x.example/outputs/jobs/a/1/out-0.png");
        assert!(links.check("jobs/a/1/out-0.png", signature));
        assert!(!links.check("jobs/a/1/out-1.png", signature));
        assert!(!Links::new([8; 32]).check("jobs/a/1/out-0.png", signature));
        let (short, long) = (&signature[..signature.len() - 2], format!("{signature}00"));
        for wrong in ["", "zz", "é", "0", short, &long] {
            assert!(!links.check("jobs/a/1/out-0.png", wrong), "{wrong}");
        }
    }

    /// Protects: the signature of a download covers its owner, its id and its end.
    #[test]
    fn a_download_is_signed_with_its_end() {
        let links = Links::new([7; 32]);
        let url = links.file_url("", "a b", "abc", 100);
        let parsed = reqwest::Url::parse("http://x").unwrap().join(&url).unwrap();
        let query: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
        assert_eq!((parsed.path(), query[0].1.as_str()), ("/v1/files/abc/download", "a b"));
        let signature = &query[2].1;
        assert!(links.check_file("a b", "abc", "100", signature));
        assert!(!links.check_file("a b", "abc", "101", signature));
        assert!(!links.check_file("a", "b abc", "101", signature));
        assert!(!links.check("a b abc 100", signature));
    }
}
