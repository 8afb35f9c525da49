//! Reads an upload, in the dialects of three clients. Parts come in any order.
//!
//! - Replicate's Python client 1.x: `content` as a file; `metadata` as JSON text.
//! - Python client 2.x: `content` as a file named `upload`; its real name in `filename`, its type in `type`, and `metadata[a][b]` a field each.
//! - JavaScript client: `content` as a file; `metadata` as JSON in a file named `blob`.

use std::path::Path;
use std::time::Duration;

use axum::extract::Multipart;
use axum::extract::multipart::{Field, MultipartError};
use axum::http::StatusCode;
use md5::Md5;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::body;
use super::refusal::Refusal;
use crate::error::Error;
use crate::storage::hex;

/// The most bytes of all texts beside the file.
const TEXTS: usize = 64 << 10;
/// The most parts.
const PARTS: usize = 1000;
/// The depth of `metadata[a][b]…`.
const DEPTH: usize = 8;
/// How long a client may say nothing within an upload.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// An upload, whose content is in a file without a name: the file goes with the process.
pub(super) struct Upload {
    /// The content, to be read from its beginning.
    pub file: tokio::fs::File,
    pub name: String,
    pub content_type: String,
    pub size: u64,
    pub sha256: String,
    pub md5: String,
    pub metadata: Map<String, Value>,
}

/// The content of an upload, and what its own part says about it.
struct Content {
    file: tokio::fs::File,
    name: Option<String>,
    content_type: Option<String>,
    size: u64,
    sha256: String,
    md5: String,
}

/// Reads an upload of at most `most` bytes into a file in `folder`. A client may say nothing for as long as `silence`.
pub(super) async fn read(
    mut parts: Multipart,
    folder: &Path,
    most: u64,
    silence: Duration,
) -> Result<Upload, Refusal> {
    let (mut content, mut metadata, mut left) = (None, Map::new(), TEXTS);
    let (mut name, mut content_type) = (None, None);
    for _ in 0..PARTS {
        let Some(mut part) = in_time(silence, parts.next_field()).await? else { break };
        let field = part.name().unwrap_or_default().to_string();
        match field.as_str() {
            "content" if content.is_some() => return Err(bad("content: given twice")),
            "content" => content = Some(receive(part, folder, most, silence).await?),
            "filename" => name = Some(text(&mut part, &mut left, silence).await?),
            "type" => content_type = Some(text(&mut part, &mut left, silence).await?),
            "metadata" => {
                let given = text(&mut part, &mut left, silence).await?;
                let given: Value =
                    serde_json::from_str(&given).map_err(|e| bad(&format!("metadata: not JSON: {e}")))?;
                match given {
                    Value::Object(fields) => metadata.extend(fields),
                    Value::Null => {}
                    _ => return Err(bad("metadata: expected an object")),
                }
            }
            field if field.starts_with("metadata[") => {
                let value = text(&mut part, &mut left, silence).await?;
                insert(&mut metadata, &field["metadata".len()..], value)?;
            }
            _ => drop(text(&mut part, &mut left, silence).await?),
        }
    }
    let content = content.ok_or_else(|| bad("content: required, but not given"))?;
    let name = name.filter(|name| !name.is_empty()).or(content.name).unwrap_or_else(|| "file".into());
    let content_type = content_type.or(content.content_type).filter(|kind| is_media_type(kind));
    Ok(Upload {
        file: content.file,
        name: shown_name(&name),
        content_type: content_type.unwrap_or_else(|| "application/octet-stream".into()),
        size: content.size,
        sha256: content.sha256,
        md5: content.md5,
        metadata,
    })
}

/// An upload of bytes that are here already.
pub(super) async fn of_bytes(
    name: &str,
    content_type: &str,
    bytes: &[u8],
    folder: &Path,
) -> Result<Upload, Error> {
    let failed = |e: std::io::Error| Error::Storage(format!("{}: {e}", folder.display()));
    let mut file = tokio::fs::File::from_std(new_file(folder).map_err(failed)?);
    file.write_all(bytes).await.map_err(failed)?;
    file.flush().await.map_err(failed)?;
    file.rewind().await.map_err(failed)?;
    Ok(Upload {
        file,
        name: name.into(),
        content_type: content_type.into(),
        size: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
        md5: hex(&Md5::digest(bytes)),
        metadata: Map::new(),
    })
}

/// Writes a part to a file.
async fn receive(
    mut part: Field<'_>,
    folder: &Path,
    most: u64,
    silence: Duration,
) -> Result<Content, Refusal> {
    let failed = |e: std::io::Error| Refusal::from(Error::Storage(format!("{}: {e}", folder.display())));
    let mut file = tokio::fs::File::from_std(new_file(folder).map_err(failed)?);
    let (mut size, mut sha256, mut md5) = (0, Sha256::new(), Md5::new());
    while let Some(bytes) = in_time(silence, part.chunk()).await? {
        size += bytes.len() as u64;
        if size > most {
            let detail = format!("content: more than {most} bytes");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        sha256.update(&bytes);
        md5.update(&bytes);
        file.write_all(&bytes).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    file.rewind().await.map_err(failed)?;
    let (name, content_type) = (part.file_name().map(String::from), part.content_type().map(String::from));
    Ok(Content { file, name, content_type, size, sha256: hex(&sha256.finalize()), md5: hex(&md5.finalize()) })
}

fn new_file(folder: &Path) -> std::io::Result<std::fs::File> {
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder)
}

/// A short part's text. `left`: how many bytes all of them may still have.
async fn text(part: &mut Field<'_>, left: &mut usize, silence: Duration) -> Result<String, Refusal> {
    let mut text = Vec::new();
    while let Some(bytes) = in_time(silence, part.chunk()).await? {
        let name = part.name().unwrap_or_default();
        *left = left.checked_sub(bytes.len()).ok_or_else(|| {
            let detail = format!("{name:?}: the parts beside `content` have more than {TEXTS} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        })?;
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).map_err(|_| bad(&format!("{:?}: not UTF-8", part.name().unwrap_or_default())))
}

/// Waits for a client that may be slow, but not silent.
async fn in_time<T>(
    silence: Duration,
    reading: impl Future<Output = Result<T, MultipartError>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(silence, reading).await {
        Ok(read) => read.map_err(|e| body::broken_parts(&e)),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "The upload has stopped")),
    }
}

/// Inserts the value of `[a][b]`.
fn insert(metadata: &mut Map<String, Value>, path: &str, value: String) -> Result<(), Refusal> {
    let wrong = || bad(&format!("metadata{path}: expected metadata[name] or metadata[name][name]"));
    let names: Vec<&str> =
        path.strip_prefix('[').and_then(|p| p.strip_suffix(']')).ok_or_else(wrong)?.split("][").collect();
    let (last, parents) = names.split_last().ok_or_else(wrong)?;
    if names.len() > DEPTH {
        return Err(wrong());
    }
    let mut place = metadata;
    for name in parents {
        let inner = place.entry(*name).or_insert_with(|| Value::Object(Map::new()));
        place = inner.as_object_mut().ok_or_else(wrong)?;
    }
    place.insert((*last).into(), value.into());
    Ok(())
}

/// A client's name of a file: its last part, without control characters, of at most 255 bytes.
fn shown_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut plain: String = last.chars().filter(|c| !c.is_control()).collect();
    while plain.len() > 255 {
        plain.pop();
    }
    if plain.trim_matches(['.', ' ']).is_empty() { "file".into() } else { plain }
}

fn is_media_type(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    is_plain
        && text.len() <= 255
        && text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty())
}

fn bad(detail: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, detail)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::extract::{FromRequest, Multipart, Request};
    use axum::http::header;
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use serde_json::{Value, json};
    use tokio::io::AsyncReadExt;
    use tower_http::timeout::TimeoutBody;

    use super::{SILENCE, Upload, read};

    /// A part: its name, its file name if it is a file, its media type, its content.
    type Part<'a> = (&'a str, Option<&'a str>, &'a str, &'a str);

    async fn multipart(body: Body) -> Multipart {
        let request = Request::builder().header(header::CONTENT_TYPE, "multipart/form-data; boundary=x");
        Multipart::from_request(request.body(body).unwrap(), &()).await.unwrap()
    }

    fn body(parts: &[Part]) -> String {
        let mut body = String::new();
        for (name, file, kind, content) in parts {
            body += &format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"");
            body += &file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
            body += &if kind.is_empty() { String::new() } else { format!("\r\nContent-Type: {kind}") };
            body += &format!("\r\n\r\n{content}\r\n");
        }
        body + "--x--\r\n"
    }

    async fn upload(parts: &[Part<'_>]) -> Result<Upload, (u16, String)> {
        let folder = tempfile::tempdir().unwrap();
        let read = read(multipart(body(parts).into()).await, folder.path(), 10, SILENCE).await;
        read.map_err(|refusal| (refusal.status.as_u16(), refusal.message))
    }

    /// Protects: the three clients' dialects, with their parts in any order, give the same upload.
    #[tokio::test]
    async fn three_dialects() {
        let metadata = json!({ "a": { "b": "1" }, "c": "2" });
        let text = metadata.to_string();
        let python_1 =
            [("metadata", None, "", text.as_str()), ("content", Some("x y.png"), "image/png", "abc")];
        let python_2 = [
            ("filename", None, "", "x y.png"),
            ("metadata[a][b]", None, "", "1"),
            ("content", Some("upload"), "", "abc"),
            ("metadata[c]", None, "", "2"),
            ("type", None, "", "image/png"),
        ];
        let javascript = [
            ("content", Some("x y.png"), "image/png", "abc"),
            ("metadata", Some("blob"), "application/json", text.as_str()),
        ];
        for parts in [&python_1[..], &python_2, &javascript] {
            let mut upload = upload(parts).await.unwrap();
            let mut content = String::new();
            upload.file.read_to_string(&mut content).await.unwrap();
            assert_eq!((content.as_str(), upload.size), ("abc", 3));
            assert_eq!((upload.name.as_str(), upload.content_type.as_str()), ("x y.png", "image/png"));
            assert_eq!(Value::Object(upload.metadata), metadata);
            assert_eq!(upload.md5, "900150983cd24fb0d6963f7d28e17f72");
            assert_eq!(upload.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        }
    }

    /// Protects: names are names, whatever paths a client puts into them; media types cannot break headers.
    #[tokio::test]
    async fn names_of_uploads() {
        let cases = [
            ("../../etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("..", "file"),
            ("/", "file"),
            ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
            ("Größe\u{7}.png", "Größe.png"),
        ];
        for (given, name) in cases {
            let upload = upload(&[
                ("filename", None, "", given),
                ("type", None, "", "text/x\r\nSet-Cookie: a"),
                ("content", Some("x"), "", "a"),
            ])
            .await
            .unwrap();
            assert_eq!(upload.name, name);
            assert_eq!(upload.content_type, "application/octet-stream");
        }
        let long = "é".repeat(300);
        let upload = upload(&[("filename", None, "", &long), ("content", Some("x"), "", "a")]).await.unwrap();
        assert_eq!(upload.name, "é".repeat(127));
    }

    /// Protects: what is wrong with an upload is said, with the status that clients act upon.
    #[tokio::test]
    async fn bad_uploads() {
        let (deep, large) = (format!("metadata{}", "[a]".repeat(9)), "x".repeat(70_000));
        let cases: [(&[Part], u16, &str); 10] = [
            (&[], 400, "content: required, but not given"),
            (&[("metadata", None, "", "{}")], 400, "content: required, but not given"),
            (&[("content", Some("a"), "", "0123456789a")], 413, "content: more than 10 bytes"),
            (
                &[("content", Some("a"), "", "1"), ("content", Some("a"), "", "1")],
                400,
                "content: given twice",
            ),
            (&[("metadata", None, "", "{")], 400, "metadata: not JSON"),
            (&[("metadata", None, "", "[1]")], 400, "metadata: expected an object"),
            (&[("metadata[a", None, "", "1")], 400, "metadata[a: expected metadata[name]"),
            (&[(&deep, None, "", "1")], 400, "metadata[a][a]"),
            (
                &[("metadata[a]", None, "", "1"), ("metadata[a][b]", None, "", "1")],
                400,
                "metadata[a][b]: expected",
            ),
            (
                &[("other", None, "", &large)],
                413,
                "\"other\": the parts beside `content` have more than 65536 bytes",
            ),
        ];
        for (parts, status, detail) in cases {
            let (found, shown) = upload(parts).await.err().unwrap();
            assert_eq!(found, status, "{shown}");
            assert!(shown.starts_with(detail), "{shown}");
        }
        let folder = tempfile::tempdir().unwrap();
        let cut = multipart(Body::from(
            "--x\r\nContent-Disposition: form-data; name=\"content\"; filename=\"a\"\r\n\r\nabc",
        ))
        .await;
        assert!(read(cut, folder.path(), 10, SILENCE).await.is_err_and(|refusal| refusal.status == 400));
    }

    /// Protects: a client that stops in the middle of an upload is told so, and its connection ends.
    #[tokio::test]
    async fn a_client_that_stops() {
        let start = Bytes::from_static(b"--x\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{");
        let stopped = stream::iter([Ok::<_, std::io::Error>(start)]).chain(stream::pending());
        let folder = tempfile::tempdir().unwrap();
        let read =
            read(multipart(Body::from_stream(stopped)).await, folder.path(), 10, Duration::from_millis(20))
                .await;
        assert!(read.is_err_and(|refusal| refusal.status == 408));
    }

    /// Protects operators from alarms: an upload that stops or is cut is a failure of its client, whoever notices it first.
    #[tokio::test]
    async fn bodies_that_fail() {
        let start = Bytes::from_static(b"--x\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{");
        let start = || stream::iter([Ok::<_, std::io::Error>(start.clone())]);
        let stopped = Body::from_stream(start().chain(stream::pending()));
        let stopped = Body::new(TimeoutBody::new(Duration::from_millis(20), stopped));
        let cut = stream::iter([Err(std::io::Error::other("the connection is reset"))]);
        let cut = Body::from_stream(start().chain(cut));
        let folder = tempfile::tempdir().unwrap();
        for (body, status, message) in
            [(stopped, 408, "The body has stopped"), (cut, 400, "The body breaks off")]
        {
            let refusal = read(multipart(body).await, folder.path(), 10, SILENCE).await.err().unwrap();
            assert_eq!((refusal.status.as_u16(), refusal.message.as_str()), (status, message));
        }
    }
}
