//! TLS of the service's own connections: to the storage, to hosts of inputs, to webhooks.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Result};

/// A client's settings: `ring`, and as roots the certificates that the binary carries together with those of the system. The
/// system has an authority of one's own; an empty container has none.
///
/// # Errors
/// The cipher suites do not go with the versions of TLS.
pub fn client_config() -> Result<ClientConfig> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| Error::Settings(format!("TLS: {e}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
