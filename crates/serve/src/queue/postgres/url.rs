//! The address of a Postgres, with what libpq's `sslmode` and `sslrootcert` say of TLS.

use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Result};

use super::{problem, tls};

type Stream = <<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect as TlsConnect<Socket>>::Stream;

/// A server, and how to reach it.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    tls: MakeRustlsConnect,
}

impl Server {
    pub(super) async fn connect(&self) -> Result<(Client, Connection<Socket, Stream>)> {
        self.config.connect(self.tls.clone()).await.map_err(|error| problem(&error))
    }
}

/// Reads a URL `postgres://user:password@host:port/database?sslmode=…`.
///
/// As in libpq, `prefer` (the default) and `require` encrypt without a look at the server's certificate, unless `sslrootcert` names
/// a file of roots; `verify-ca` and `verify-full` check certificate and host's name.
///
/// # Errors
/// The text is no such URL. The error does not repeat the URL, which may have a password in it.
pub(super) fn parse(url: &str) -> Result<Server> {
    let wrong = |problem: &str| Error::Settings(format!("the database's URL: {problem}"));
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong("expected postgres://USER:PASSWORD@HOST:PORT/DATABASE"));
    }
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut roots, mut rest) = ("prefer".to_owned(), None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = value.to_owned(),
            Some(("sslrootcert", "system")) => roots = None,
            Some(("sslrootcert", value)) => roots = Some(value.replace("%2F", "/").replace("%2f", "/")),
            _ => rest.push(pair),
        }
    }
    let mut config = format!("{address}?{}", rest.join("&")).parse::<Config>().map_err(|error| {
        wrong(&std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string))
    })?;
    let (ssl_mode, verify) = match mode.as_str() {
        "disable" => (SslMode::Disable, false),
        "allow" | "prefer" => (SslMode::Prefer, roots.is_some()),
        "require" => (SslMode::Require, roots.is_some()),
        "verify-ca" | "verify-full" => (SslMode::Require, true),
        other => {
            let modes = "disable, prefer, require, verify-ca or verify-full";
            return Err(wrong(&format!("sslmode: expected {modes}, found {other}")));
        }
    };
    config.ssl_mode(ssl_mode).keepalives_idle(Duration::from_secs(30));
    config.connect_timeout(*config.get_connect_timeout().unwrap_or(&Duration::from_secs(5)));
    if config.get_application_name().is_none() {
        config.application_name("calotype");
    }
    Ok(Server { config, tls: MakeRustlsConnect::new(tls::client(verify, roots.as_deref())?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: what libpq's modes mean, and errors that keep the password to themselves.
    #[test]
    fn modes_of_tls() {
        let mode = |query: &str| {
            parse(&format!("postgres://me:secret@host:1/db?{query}")).map(|s| s.config.get_ssl_mode())
        };
        assert_eq!(mode("").unwrap(), SslMode::Prefer);
        assert_eq!(mode("sslmode=disable").unwrap(), SslMode::Disable);
        assert_eq!(mode("connect_timeout=3&sslmode=require").unwrap(), SslMode::Require);
        assert_eq!(mode("sslmode=verify-full&sslrootcert=system").unwrap(), SslMode::Require);
        for wrong in ["sslmode=maybe", "nonsense=1", "sslmode=verify-ca&sslrootcert=%2Fno%2Fsuch.pem"] {
            let error = mode(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
            assert!(error.starts_with("the database's URL: "), "{error}");
        }
        assert!(parse("mysql://me:secret@host/db").is_err());
    }
}
