//! An object as the answer to a GET: whole, or a range of it.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use object_store::{GetOptions, GetRange, GetResult};

use super::Storage;
use crate::error::{Error, Result};

/// How long clients may keep an object without asking again. What has a key does not change.
const CACHE: &str = "private, max-age=3600";

/// Answers with an object: 200, 206 for a range, 304 where the client has it, 404, 416. `name` is the file's name for whoever saves
/// it, otherwise the end of the key.
///
/// # Errors
/// The storage does not answer.
pub async fn download(
    storage: &Storage,
    key: &str,
    headers: &HeaderMap,
    name: Option<&str>,
) -> Result<Response> {
    let Some(head) = storage.get(key, GetOptions::new().with_head(true)).await? else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let (size, tag) = (head.meta.size, tag_of(&head));
    let mut answer = Response::builder();
    // A range counts only where the client does not have the object.
    if is_known(headers, tag.as_deref()) {
        if let Some(tag) = tag {
            answer = answer.header(header::ETAG, tag);
        }
        answer = answer.header(header::CACHE_CONTROL, CACHE).status(StatusCode::NOT_MODIFIED);
        return answer.body(Body::empty()).map_err(|e| wrong(key, &e));
    }
    let range = match wanted(headers, size) {
        Ok(range) => range,
        Err(()) => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, range).into_response());
        }
    };
    let is_part = range.is_some();
    let options = GetOptions::new().with_range(range);
    let Some(found) = storage.get(key, options).await? else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let tag = tag_of(&found);
    if let Some(tag) = tag {
        answer = answer.header(header::ETAG, tag);
    }
    let name = name.unwrap_or_else(|| key.rsplit('/').next().unwrap_or(key));
    let (kind, is_shown) = content_type(key);
    answer = answer
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_DISPOSITION, disposition(name, is_shown))
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, CACHE)
        // A file of a user is never a page of ours, whatever is in it.
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox");
    let part = found.range.clone();
    answer = answer.header(header::CONTENT_LENGTH, part.end - part.start);
    if is_part {
        let range = format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1));
        answer = answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
    }
    let stream = found.into_stream().map_err(std::io::Error::other);
    answer.body(Body::from_stream(stream)).map_err(|e| wrong(key, &e))
}

fn wrong(key: &str, e: &axum::http::Error) -> Error {
    Error::Storage(format!("{key}: {e}"))
}

/// The tag of an object, in quotes.
fn tag_of(found: &GetResult) -> Option<String> {
    let tag = found.meta.e_tag.as_deref()?;
    Some(if tag.contains('"') { tag.into() } else { format!("\"{tag}\"") })
}

/// Whether `If-None-Match` names the object that is there: by `*`, or by a tag, weak or not, in any of the headers.
fn is_known(headers: &HeaderMap, tag: Option<&str>) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"').to_owned();
    lists.into_iter().any(|list| {
        // What is between quotes is at the odd places: a comma in it belongs to the tag.
        let mut tags = list.split('"').skip(1).step_by(2);
        list.trim() == "*" || tag.is_some_and(|tag| tags.any(|known| known == opaque(tag)))
    })
}

/// The range that a request asks for. `None`: the whole. An error: the range is outside of the object.
fn wanted(headers: &HeaderMap, size: u64) -> std::result::Result<Option<GetRange>, ()> {
    // A server may answer with the whole: it does so for several ranges, and for conditions on the range.
    if headers.contains_key(header::IF_RANGE) {
        return Ok(None);
    }
    let text = headers.get(header::RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Ok(None);
    };
    let (first, last) = (first.trim(), last.trim());
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => GetRange::Bounded(first..last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => GetRange::Offset(first),
        (Err(_), Ok(last)) if first.is_empty() => GetRange::Suffix(last.min(size)),
        _ => return Ok(None),
    };
    let is_outside = match &range {
        GetRange::Bounded(range) => range.start >= size,
        GetRange::Offset(first) => *first >= size,
        GetRange::Suffix(last) => *last == 0,
    };
    if is_outside { Err(()) } else { Ok(Some(range)) }
}

/// The media type of a key, and whether browsers may show it: what the service makes, and pictures.
fn content_type(key: &str) -> (&'static str, bool) {
    let extension = key.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref() {
        Some("png") => ("image/png", true),
        Some("jpg" | "jpeg") => ("image/jpeg", true),
        Some("webp") => ("image/webp", true),
        Some("gif") => ("image/gif", true),
        Some("tar") => ("application/x-tar", false),
        Some("zip") => ("application/zip", false),
        Some("json") => ("application/json", false),
        Some("txt" | "log") => ("text/plain; charset=utf-8", false),
        _ => ("application/octet-stream", false),
    }
}

/// `Content-Disposition`: the name in ASCII for all clients, and in full for those of this century.
fn disposition(name: &str, is_shown: bool) -> HeaderValue {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_graphic() && !"\"\\/%".contains(c) { c } else { '_' }).collect();
    let full = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    let how = if is_shown { "inline" } else { "attachment" };
    let value = format!("{how}; filename=\"{plain}\"; filename*=UTF-8''{full}");
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::{HeaderMap, HeaderName, Response, header};

    use super::super::Storage;
    use super::download;

    async fn ask(storage: &Storage, headers: &[(HeaderName, &str)]) -> (u16, HeaderMap, String) {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, value.parse().unwrap());
        }
        let headers = all;
        let answer = download(storage, "files/a/x.tar", &headers, Some("Größe \"1\".tar")).await.unwrap();
        let (parts, body): (_, axum::body::Body) = Response::into_parts(answer);
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Protects: ranges as RFC 9110 has them; what a client has already is not sent again; names cannot break the header.
    #[tokio::test]
    async fn ranges_and_tags() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path()).unwrap();
        storage.put("files/a/x.tar", "0123456789".into()).await.unwrap();
        let (status, headers, body) = ask(&storage, &[]).await;
        assert_eq!((status, body.as_str()), (200, "0123456789"));
        assert_eq!(headers[header::CONTENT_LENGTH], "10");
        let name = headers[header::CONTENT_DISPOSITION].to_str().unwrap();
        assert_eq!(
            name,
            "attachment; filename=\"Gr__e__1_.tar\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%221%22%2Etar"
        );
        let tag = headers[header::ETAG].to_str().unwrap().to_string();
        let inner = tag.trim_matches('"');
        for (known, status) in [
            (tag.clone(), 304),
            (format!("W/{tag}"), 304),
            (format!(r#""x",W/"y" , {tag}"#), 304),
            (format!(r#""a,b", {tag}, "c""#), 304),
            ("*".into(), 304),
            (" * ".into(), 304),
            (String::new(), 200),
            (inner.into(), 200),
            (r#"W/"x", "y,*""#.into(), 200),
            (format!(r#""x,{inner}""#), 200),
        ] {
            assert_eq!(ask(&storage, &[(header::IF_NONE_MATCH, &known)]).await.0, status, "{known}");
        }
        // Of several headers, each counts.
        let two = [(header::IF_NONE_MATCH, "\"x\""), (header::IF_NONE_MATCH, tag.as_str())];
        assert_eq!(ask(&storage, &two).await.0, 304);
        let (status, headers, body) =
            ask(&storage, &[(header::IF_NONE_MATCH, "*"), (header::RANGE, "bytes=10-")]).await;
        assert_eq!((status, headers[header::ETAG].to_str().unwrap(), body.as_str()), (304, tag.as_str(), ""));

        let ranges = [
            ("bytes=2-4", 206, "234", "bytes 2-4/10"),
            ("bytes=8-", 206, "89", "bytes 8-9/10"),
            ("bytes=-3", 206, "789", "bytes 7-9/10"),
            ("bytes=-30", 206, "0123456789", "bytes 0-9/10"),
            ("bytes=8-99999999999999999999", 200, "0123456789", ""),
            ("bytes=8-18446744073709551615", 206, "89", "bytes 8-9/10"),
            ("bytes=10-", 416, "", "bytes */10"),
            ("bytes=-0", 416, "", "bytes */10"),
            ("bytes=4-2", 200, "0123456789", ""),
            ("bytes=0-1,3-4", 200, "0123456789", ""),
            ("lines=1-2", 200, "0123456789", ""),
        ];
        for (range, status, body, shown) in ranges {
            let answer = ask(&storage, &[(header::RANGE, range)]).await;
            assert_eq!((answer.0, answer.2.as_str()), (status, body), "{range}");
            let found = answer.1.get(header::CONTENT_RANGE).map_or("", |range| range.to_str().unwrap());
            assert_eq!(found, shown, "{range}");
        }
    }
}
