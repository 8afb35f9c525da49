//! As much of S3 as the storage uses, in memory, over HTTP on the loopback interface. For tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use object_store::aws::AmazonS3Builder;

/// The only key that the stub knows.
const ACCESS_KEY: &str = "stub";

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    next: usize,
}

/// A server with one bucket, for as long as the test's runtime lives.
pub(crate) struct StubS3 {
    address: String,
    bucket: Arc<Mutex<Bucket>>,
}

impl StubS3 {
    pub(crate) async fn start() -> StubS3 {
        let bucket = Arc::new(Mutex::new(Bucket::default()));
        let router = Router::new().fallback(answer).with_state(bucket.clone());
        let router = router.layer(axum::extract::DefaultBodyLimit::disable());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        StubS3 { address, bucket }
    }

    /// The variables that a user would set.
    pub(crate) fn builder(&self) -> AmazonS3Builder {
        let builder = AmazonS3Builder::new().with_endpoint(&self.address).with_allow_http(true);
        builder.with_access_key_id(ACCESS_KEY).with_secret_access_key("secret")
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.bucket.lock().unwrap().objects.keys().cloned().collect()
    }

    /// The number of uploads in parts that are neither complete nor aborted.
    pub(crate) fn uploads(&self) -> usize {
        self.bucket.lock().unwrap().uploads.len()
    }
}

async fn answer(State(bucket): State<Arc<Mutex<Bucket>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let signed =
        parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !signed.contains(&format!("Credential={ACCESS_KEY}/")) {
        return (StatusCode::FORBIDDEN, "<Error><Code>InvalidAccessKeyId</Code></Error>").into_response();
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let url = reqwest::Url::parse("http://stub").unwrap().join(&parts.uri.to_string()).unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let path = percent_encoding::percent_decode_str(url.path()).decode_utf8().unwrap();
    let key =
        path.trim_start_matches('/').strip_prefix("bucket").unwrap().trim_start_matches('/').to_string();
    let mut bucket = bucket.lock().unwrap();
    match parts.method {
        Method::GET if key.is_empty() => list(&bucket, &query),
        Method::GET | Method::HEAD => get(&bucket, &key, &parts.headers),
        Method::PUT => match (query.get("uploadId"), query.get("partNumber")) {
            (Some(upload), Some(number)) => {
                bucket.uploads.get_mut(upload).unwrap().insert(number.parse().unwrap(), body);
                [(header::ETAG, format!("\"{number}\""))].into_response()
            }
            _ => {
                bucket.objects.insert(key, body);
                [(header::ETAG, "\"1\"")].into_response()
            }
        },
        Method::POST if query.contains_key("uploads") => {
            bucket.next += 1;
            let upload = format!("upload-{}", bucket.next);
            bucket.uploads.insert(upload.clone(), BTreeMap::new());
            format!(
                "<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
            .into_response()
        }
        Method::POST if query.contains_key("delete") => delete_all(&mut bucket, &body),
        Method::POST => {
            let parts = bucket.uploads.remove(&query["uploadId"]).unwrap();
            let whole: Vec<u8> = parts.into_values().flatten().collect();
            bucket.objects.insert(key.clone(), whole.into());
            format!("<CompleteMultipartUploadResult><Key>{key}</Key><ETag>\"1\"</ETag></CompleteMultipartUploadResult>").into_response()
        }
        Method::DELETE => {
            match query.get("uploadId") {
                Some(upload) => drop(bucket.uploads.remove(upload)),
                None => drop(bucket.objects.remove(&key)),
            }
            StatusCode::NO_CONTENT.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn list(bucket: &Bucket, query: &BTreeMap<String, String>) -> Response {
    let prefix = query.get("prefix").map_or("", String::as_str);
    let mut xml = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_string();
    for (key, bytes) in bucket.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
        let size = bytes.len();
        xml += &format!(
            "<Contents><Key>{key}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag><Size>{size}</Size></Contents>"
        );
    }
    (xml + "</ListBucketResult>").into_response()
}

fn get(bucket: &Bucket, key: &str, headers: &HeaderMap) -> Response {
    let Some(bytes) = bucket.objects.get(key) else {
        return (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response();
    };
    let common = [(header::ETAG, "\"1\""), (header::LAST_MODIFIED, "Wed, 01 Jan 2020 00:00:00 GMT")];
    let range = headers
        .get(header::RANGE)
        .map(|range| range.to_str().unwrap().trim_start_matches("bytes=").to_string());
    let Some((first, last)) = range.as_deref().and_then(|range| range.split_once('-')) else {
        return (common, bytes.clone()).into_response();
    };
    let size = bytes.len();
    let (first, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, size.min(last + 1)),
        (Ok(first), Err(_)) => (first, size),
        (_, last) => (size.saturating_sub(last.unwrap()), size),
    };
    let range = [(header::CONTENT_RANGE, format!("bytes {first}-{}/{size}", end - 1))];
    (StatusCode::PARTIAL_CONTENT, common, range, bytes.slice(first..end)).into_response()
}

fn delete_all(bucket: &mut Bucket, body: &[u8]) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let mut xml = "<DeleteResult>".to_string();
    for part in body.split("<Key>").skip(1) {
        let key = part.split("</Key>").next().unwrap();
        bucket.objects.remove(key);
        xml += &format!("<Deleted><Key>{key}</Key></Deleted>");
    }
    (xml + "</DeleteResult>").into_response()
}
