//! Fetches from a server on the loopback interface.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use futures_util::stream;

use super::client::{Allowed, CheckedClient, Lookup};
use super::{Problem, fetch, file_name};

/// The host of all tests: its server is on 127.0.0.1, the only address that counts as public.
async fn host() -> (CheckedClient, String) {
    let forever = || async { Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>()) };
    let endless =
        || async { Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 1000]))) };
    let drops = || {
        stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>("x"), ()))
        })
    };
    let drip = move || async move { Body::from_stream(drops()) };
    let router = Router::new()
        .route("/a%20b.png", get(|| async { "picture" }))
        .route("/typed", get(|| async { ([(header::CONTENT_TYPE, "application/zip; x=y")], "archive") }))
        .route("/missing", get(|| async { StatusCode::NOT_FOUND }))
        .route("/endless", get(endless))
        .route("/drip", get(drip))
        .route("/silent", get(forever))
        .route("/large", get(|| async { vec![0_u8; 2000] }))
        .route("/relative", get(|| async { Redirect::temporary("typed") }))
        .route("/circle", get(|| async { Redirect::permanent("/circle") }))
        .route("/to-private", get(|| async { Redirect::temporary("http://127.0.0.2:1/") }))
        .route("/to-metadata", get(|| async { Redirect::temporary("http://169.254.169.254/latest/") }))
        .route("/to-name", get(|| async { Redirect::temporary("http://private.example/") }))
        .route(
            "/to-file",
            get(|| async { (StatusCode::FOUND, [(header::LOCATION, "file:///etc/passwd")]).into_response() }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let public: IpAddr = [127, 0, 0, 1].into();
    let allowed: Allowed = Arc::new(move |address| address == public);
    let lookup: Lookup = Arc::new(move |name| {
        let address = if name == "public.example" { public } else { [127, 0, 0, 3].into() };
        Box::pin(async move { Ok(vec![address]) })
    });
    (CheckedClient::with(allowed, lookup).unwrap(), format!("http://public.example:{port}"))
}

async fn try_fetch(client: &CheckedClient, url: &str, folder: &Path) -> Result<(String, String), String> {
    let limit = if url.ends_with("/silent") || url.ends_with("/drip") {
        Duration::from_millis(50)
    } else {
        Duration::from_secs(60)
    };
    match fetch::fetch(client, url, folder, 1000, &fetch::Pace::new(limit)).await {
        Ok(path) => Ok((
            path.file_name().unwrap().to_string_lossy().into_owned(),
            std::fs::read_to_string(&path).unwrap(),
        )),
        Err(Problem::Client(problem)) => Err(problem),
        Err(Problem::Ours(error)) => panic!("{error}"),
    }
}

/// Protects: files come with the names that URLs or media types give; failures of a host are told in one line, without the query.
#[tokio::test]
async fn fetches() {
    let (client, base) = host().await;
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("/a%20b.png?x=1", Ok(("a_b.png", "picture"))),
        ("/typed", Ok(("typed.zip", "archive"))),
        ("/relative", Ok(("relative.zip", "archive"))),
        ("/missing?token=secret", Err("/missing: the host answers 404 Not Found")),
        ("/endless", Err("/endless: more than 1000 bytes")),
        ("/large", Err("/large: more than 1000 bytes")),
        ("/circle", Err("/circle: more than 5 redirects")),
        ("/silent", Err("/silent: not there after 50ms")),
        ("/drip", Err("/drip: not there after 50ms")),
    ];
    for (path, expected) in cases {
        let found = try_fetch(&client, &format!("{base}{path}"), folder.path()).await;
        match expected {
            Ok((name, text)) => assert_eq!(found, Ok((name.to_string(), text.to_string())), "{path}"),
            Err(problem) => assert_eq!(found, Err(format!("{base}{problem}")), "{path}"),
        }
    }
}

/// Protects: a redirect is checked like the URL itself, whatever it leads to.
#[tokio::test]
async fn redirects_to_private_addresses() {
    let (client, base) = host().await;
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("/to-private", "127.0.0.2 is not on the public internet"),
        ("/to-metadata", "169.254.169.254 is not on the public internet"),
        ("/to-name", "private.example is not on the public internet"),
        ("/to-file", "expected an http or https URL, found file:"),
    ];
    for (path, problem) in cases {
        let found = try_fetch(&client, &format!("{base}{path}"), folder.path()).await.unwrap_err();
        assert!(found.contains(problem), "{path}: {found}");
    }
}

/// Protects: a foreign name becomes a plain one within its folder.
#[test]
fn file_names() {
    let long = format!("{}.tar", "x".repeat(300));
    let cases = [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("...", "file"),
        ("", "file"),
        ("a/", "file"),
        (".bashrc", "bashrc"),
        ("Größe 1\n.tar", "Gr__e_1_.tar"),
        ("a\0b", "a_b"),
        ("<img src=x>", "_img_src_x_"),
    ];
    for (name, plain) in cases {
        assert_eq!(file_name(name), plain, "{name:?}");
    }
    assert_eq!(file_name(&long), long[long.len() - 100..]);
}
