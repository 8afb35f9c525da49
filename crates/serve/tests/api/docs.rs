//! What tells newcomers their way.

use serde_json::{Value, json};

use crate::service::{Service, has, read};

/// Protects newcomers: the root names the docs, whose every endpoint is there, and whose every example works as it stands.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_docs_name_is_there() {
    let service = Service::start();
    let url = service.get("/").await.body["docs_url"].as_str().unwrap().to_owned();
    let docs = service.get(&url).await;
    assert_eq!((docs.status, docs.headers["content-type"].as_str()), (200, "text/plain; charset=utf-8"));
    let text = docs.body.as_str().unwrap();
    for address in [format!("{}/\n", service.address), format!("{}/openapi.json\n", service.address)] {
        assert!(text.contains(&address), "{address}: {text}");
    }
    let (mut endpoints, mut examples) = (0, 0);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["POST", "/shutdown", ..] => endpoints += 1,
            [method @ ("GET" | "POST" | "PUT"), path, ..] => {
                let path = path.replace("OWNER/NAME", "stability-ai/sdxl").replace("ID", "none");
                // Nothing that is read of an answer but its status, of streams not even their end.
                let request = service.request(method, &path).header("prefer", "respond-async");
                let status = request.body("[]").send().await.unwrap().status().as_u16();
                assert_ne!(status, 405, "{line}");
                endpoints += 1;
            }
            ["curl", "-s", url, ..] => {
                let body = line.split_once(" -d '").unwrap().1.trim_end_matches('\'');
                let answer = read(service.request("POST", url).body(body.to_owned())).await;
                assert!(matches!(answer.status, 200 | 201), "{line}: {answer:?}");
                examples += 1;
            }
            _ => {}
        }
    }
    assert!(endpoints > 30 && examples == 4, "{endpoints} endpoints, {examples} examples");
    // A path that no route has counts as one of others.
    let metrics = service.get("/metrics").await.body.as_str().unwrap().to_owned();
    assert!(!metrics.contains("route=\"other\""), "{metrics}");
}

/// Protects people who try a client's base URL in a browser: it says where to go on.
#[tokio::test(flavor = "multi_thread")]
async fn the_root_of_v1() {
    let service = Service::front();
    for path in ["/v1", "/v1/", "/v1/v1", "/v1/v1/"] {
        let answer = service.get(path).await;
        let part = json!({
            "docs_url": format!("{}/docs", service.address),
            "openapi_url": format!("{}/openapi.json", service.address),
        });
        assert!(answer.status == 200 && has(&answer.body, &part), "{path}: {answer:?}");
        for (name, url) in answer.body.as_object().unwrap() {
            assert_eq!(service.get(url.as_str().unwrap()).await.status, 200, "{name}");
        }
    }
}

/// Protects services with tokens: the docs are for everybody, and say that a token is needed.
#[tokio::test(flavor = "multi_thread")]
async fn docs_of_a_service_with_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, format!("ana read {}", "0".repeat(64))).unwrap();
    let service = Service::with(|settings| {
        settings.workers = 0;
        settings.token_file = Some(file);
    });
    let Value::String(text) = service.get("/docs").await.body else { panic!("no text") };
    assert_eq!(text.matches(" -H 'authorization: Bearer TOKEN' ").count(), 4, "{text}");
    assert_eq!(service.get("/v1").await.status, 401);
}
