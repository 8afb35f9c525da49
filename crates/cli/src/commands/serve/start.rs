//! What a service or a worker says at its start, and what it asks of the system.

use calotype_serve::queue::sqlite_file;
use calotype_serve::settings::Settings;

/// Where jobs and files are, and the model, in one line.
pub fn places(settings: &Settings, model: &str) -> String {
    let shown = |path: std::path::PathBuf| std::path::absolute(&path).unwrap_or(path).display().to_string();
    let database = settings.database.as_deref().map(without_secrets);
    let database = database.unwrap_or_else(|| shown(sqlite_file(&settings.data)));
    let storage = settings.storage.as_deref().map(without_secrets);
    let storage = storage.unwrap_or_else(|| shown(settings.data.join("files")));
    format!("model {model}, jobs in {database}, files in {storage}, data in {}", shown(settings.data.clone()))
}

/// An address without its password and its query. Passwords may have any character, so that what counts is the last `@`.
fn without_secrets(address: &str) -> String {
    let plain = |text: &str| text.split(['?', '#']).next().unwrap_or_default().to_owned();
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, user)), Some((_, host))) => {
            let user = user.split([':', '@', '/', '?', '#']).next().unwrap_or_default();
            format!("{scheme}://{user}@{}", plain(host))
        }
        (Some(_), None) => plain(address),
        // No address at all, which the service refuses.
        (None, _) => "(no address)".into(),
    }
}

/// A warning where strangers may use the service.
pub fn warning(settings: &Settings) -> Option<String> {
    let is_open = settings.token_file.is_none() && !settings.listen.ip().is_loopback();
    is_open.then(|| {
        format!(
            "--listen {}: whoever reaches this address may use the service, as there is no --token-file",
            settings.listen.ip()
        )
    })
}

/// Has the system allow as many open files as this process may have: each connection is one.
#[cfg(unix)]
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(e) = raised {
        tracing::info!("the limit of open files stays as it is: {e}");
    }
}

#[cfg(not(unix))]
pub fn raise_open_files() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects passwords: what is printed at the start has none, whatever characters they have.
    #[test]
    fn addresses_without_passwords() {
        for (address, shown) in [
            (
                "postgres://ana:secret@db.example:5432/jobs?sslmode=require",
                "postgres://ana@db.example:5432/jobs",
            ),
            ("postgres://ana:se:c/r?e#t@x@db.example/jobs", "postgres://ana@db.example/jobs"),
            ("postgres://ana@db.example/jobs", "postgres://ana@db.example/jobs"),
            ("postgres://db.example/jobs?user=ana&password=secret", "postgres://db.example/jobs"),
            ("postgres:///jobs?password=secret", "postgres:///jobs"),
            ("host=db password=secret", "(no address)"),
            ("postgres://db.example/jobs?password=secret&options=a@b", "postgres://db.example@b"),
            ("s3://bucket/calotype", "s3://bucket/calotype"),
        ] {
            assert_eq!(without_secrets(address), shown);
        }
    }

    /// Protects operators who open a service to a network: they hear of it, and nobody else does.
    #[test]
    fn services_that_are_open() {
        for (listen, tokens, warns) in [
            ("127.0.0.1:5000", None, false),
            ("[::1]:5000", None, false),
            ("0.0.0.0:5000", None, true),
            ("[::]:5000", None, true),
            ("192.168.1.7:80", None, true),
            ("0.0.0.0:5000", Some("tokens"), false),
        ] {
            let listen = listen.parse().expect("an address");
            let settings =
                Settings { listen, token_file: tokens.map(Into::into), ..Settings::in_folder("data") };
            assert_eq!(warning(&settings).is_some(), warns, "{listen}");
        }
    }
}
