//! The trace that a request belongs to: the headers `traceparent` and `tracestate` of W3C's Trace Context. They are passed on to webhooks and
//! uploads on the request's behalf, and are in the log.

use axum::http::HeaderMap;

use crate::job::Trace;

/// The most characters of a `traceparent`, whose later versions may be longer than the first.
const MAX_PARENT: usize = 256;
/// The most characters of a `tracestate` that has to be passed on.
const MAX_STATE: usize = 512;

/// The trace in the headers of a request. A malformed `traceparent` is left out, and so is its `tracestate`, as the standard says.
pub fn of(headers: &HeaderMap) -> Trace {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(parent) = text("traceparent").filter(|parent| is_parent(parent)) else {
        return Trace::default();
    };
    let states: Vec<&str> =
        headers.get_all("tracestate").iter().filter_map(|value| value.to_str().ok()).collect();
    let state = Some(states.join(",")).filter(|state| !state.is_empty() && state.len() <= MAX_STATE);
    Trace { traceparent: Some(parent.to_owned()), tracestate: state }
}

/// Whether a text is `VERSION-TRACE-PARENT-FLAGS`, in small hexadecimal digits.
fn is_parent(text: &str) -> bool {
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
    };
    let is_id = |part: &str, length: usize| is_hex(part, length) && part.bytes().any(|c| c != b'0');
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags, rest @ ..] = parts.as_slice() else { return false };
    let may_be_longer = *version != "00" && text.len() <= MAX_PARENT;
    is_hex(version, 2)
        && *version != "ff"
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
        && (rest.is_empty() || may_be_longer)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// Protects those who read the traces: what is passed on is a trace of the standard's form, or nothing.
    #[test]
    fn headers_of_a_trace() {
        let later = PARENT.replacen("00", "cc", 1);
        for (parent, is_taken) in [
            (PARENT, true),
            (&later, true),
            (&format!("{later}-more"), true),
            (&format!("{PARENT}-more"), false),
            (&PARENT.to_uppercase(), false),
            (&PARENT.replacen("00", "ff", 1), false),
            (&PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), false),
            (&PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)), false),
            ("00-4bf92f35-00f067aa0ba902b7-01", false),
            ("", false),
            ("---", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_str(parent).unwrap());
            headers.append("tracestate", HeaderValue::from_static("a=1"));
            headers.append("tracestate", HeaderValue::from_static("b=2"));
            let trace = of(&headers);
            assert_eq!(trace.traceparent.as_deref(), is_taken.then_some(parent), "{parent}");
            assert_eq!(trace.tracestate.as_deref(), is_taken.then_some("a=1,b=2"), "{parent}");
        }
        let alone = HeaderMap::from_iter([("tracestate".parse().unwrap(), HeaderValue::from_static("a=1"))]);
        assert_eq!(of(&alone), Trace::default());
    }
}
