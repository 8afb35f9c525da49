//! The client of S3. Credentials, region and endpoint come from the usual variables: `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, …, or from the role of the machine.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};

use crate::error::{Error, Result};
use crate::tls;

/// How long the storage may fail until a request that needs it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens `s3://bucket/prefix`.
pub(super) fn open(address: &str) -> Result<Arc<dyn ObjectStore>> {
    let builder = AmazonS3Builder::from_env();
    open_with(address, builder)
}

/// [`open`] with what the variables say.
pub(super) fn open_with(address: &str, builder: AmazonS3Builder) -> Result<Arc<dyn ObjectStore>> {
    let wrong =
        || Error::Settings(format!("storage: expected s3://BUCKET or s3://BUCKET/PREFIX, found {address}"));
    let (bucket, prefix) = address
        .strip_prefix("s3://")
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        .ok_or_else(wrong)?;
    if bucket.is_empty() {
        return Err(wrong());
    }
    let prefix = Path::parse(prefix.trim_matches('/')).map_err(|_| wrong())?;
    let retry = RetryConfig { retry_timeout: PATIENCE, ..RetryConfig::default() };
    let builder = builder.with_bucket_name(bucket).with_retry(retry).with_http_connector(Connector);
    let store = builder.build().map_err(|e| Error::Settings(format!("storage {address}: {e}")))?;
    Ok(if prefix.is_root() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) })
}

/// Connects with the service's own TLS, because the platform's roots are missing in an empty container.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "S3",
            source: e,
        };
        let config = tls::client_config().map_err(|e| failed(e.into()))?;
        let client = reqwest::Client::builder().tls_backend_preconfigured(config);
        // Without a limit of the whole: a part of 8 MiB may take long on a slow line, but never says nothing for so long.
        let client = client.connect_timeout(Duration::from_secs(5)).read_timeout(Duration::from_secs(30));
        client.build().map(HttpClient::new).map_err(|e| failed(e.into()))
    }
}
