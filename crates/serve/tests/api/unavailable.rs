//! What the service needs is away for a while: clients are told to come back, nothing is made, and what was acknowledged is there again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::Cluster;
use crate::service::{Answer, PNG, Service, has, read};

const PREDICTIONS: &str = "/v1/models/stability-ai/sdxl/predictions";
/// The folder of a disk that this process may fill.
const DISK: &str = "CALOTYPE_TEST_DISK";

/// Asserts that an answer says: later.
fn is_later(path: &str, answer: &Answer) {
    assert_eq!(answer.status, 503, "{path}: {answer:?}");
    assert_eq!(answer.headers.get("retry-after").map(String::as_str), Some("5"), "{path}: {answer:?}");
}

async fn ids(service: &Service) -> Vec<String> {
    let list = service.get("/v1/predictions").await.body;
    let ids = list["results"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// Sends a file. Returns the answer.
async fn upload(service: &Service, content: &[u8]) -> Answer {
    let head = b"--x\r\nContent-Disposition: form-data; name=\"content\"; filename=\"a.bin\"\r\n\r\n";
    let body = [head, content, b"\r\n--x--\r\n"].concat();
    read(
        service
            .request("POST", "/v1/files")
            .header("content-type", "multipart/form-data; boundary=x")
            .body(body),
    )
    .await
}

async fn metrics(service: &Service) -> String {
    let answer = service.get("/metrics").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.as_str().unwrap().to_owned()
}

/// Protects clients of a database that is away: each API says so in its form, what is asked meanwhile is not made, and the service goes on
/// by itself when the database is there again, with all that it had acknowledged. Operators still see the numbers.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away() {
    let Some(mut cluster) = Cluster::start() else { return };
    let service = Service::with(|settings| {
        settings.workers = 0;
        settings.database = Some(cluster.url("public"));
    });
    let kept = service.prediction(json!({ "prompt": "kept" })).await;
    let before = metrics(&service).await;
    assert!(before.contains("calotype_jobs_waiting{kind=\"prediction\"} 1\n"), "{before}");
    cluster.stop();
    let message = "the service's database does not answer; try again";
    let (cog, replicate) =
        (json!({ "error": message, "status": "failed" }), json!({ "detail": message, "status": 503 }));
    let openai = json!({ "error": { "message": message, "type": "server_error" } });
    let training = json!({ "version": "stability-ai/sdxl", "destination": "me/fox", "input": { "input_images": "https://x.example/a.zip" } });
    let cancel = format!("{kept}/cancel");
    for (method, path, body, part) in [
        ("POST", "/predictions", json!({}), &cog),
        ("PUT", "/predictions/mine", json!({}), &cog),
        ("POST", "/predictions/mine/cancel", json!({}), &cog),
        ("POST", "/v1/predictions", json!({ "version": "stability-ai/sdxl" }), &replicate),
        ("POST", PREDICTIONS, json!({}), &replicate),
        ("POST", "/v1/trainings", training, &replicate),
        ("GET", &kept, Value::Null, &replicate),
        ("POST", &cancel, Value::Null, &replicate),
        ("GET", "/v1/predictions", Value::Null, &replicate),
        ("GET", "/v1/models", Value::Null, &replicate),
        ("GET", "/v1/files", Value::Null, &replicate),
        ("GET", "/v1/webhooks/default/secret", Value::Null, &replicate),
        ("POST", "/v1/images/generations", json!({ "prompt": "a" }), &openai),
        ("POST", "/sdapi/v1/txt2img", json!({ "prompt": "a" }), &json!({ "detail": message })),
    ] {
        let answer = read(service.request(method, path).json(&body)).await;
        is_later(path, &answer);
        assert!(has(&answer.body, part), "{path}: {answer:?}");
    }
    is_later("/v1/files", &upload(&service, b"content").await);
    let health = service.get("/health-check").await;
    assert_eq!((health.status, &health.body["status"]), (200, &json!("UNHEALTHY")));
    let without = metrics(&service).await;
    assert!(without.contains("calotype_database_up 0\n"), "{without}");
    assert!(!without.contains("jobs_waiting{"), "{without}");
    assert!(without.contains("calotype_http_requests_total{"), "{without}");
    cluster.resume();
    assert!(kept.ends_with(&ids(&service).await.join(" ")), "what was acknowledged, and nothing else");
    let kept = service.get(&kept).await.body;
    assert_eq!((&kept["status"], &kept["input"]["prompt"]), (&json!("starting"), &json!("kept")));
    assert_eq!(service.get("/v1/files").await.body["results"], json!([]));
    assert_eq!(service.get("/v1/models/me/fox").await.status, 404);
    let metrics = metrics(&service).await;
    for line in ["calotype_database_up 1\n", "calotype_jobs_waiting{kind=\"prediction\"} 1\n"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let again = service.request("PUT", "/predictions/mine").header("prefer", "respond-async");
    assert_eq!(read(again).await.status, 202);
}

/// Protects clients of a storage that is away: no upload is promised that is not there, a result is not said to be lost, and jobs wait for
/// the storage.
#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_away() {
    let service = Service::start();
    let done = service.prediction(json!({})).await;
    service.over(&done).await;
    let output = service.get(&format!("{done}?file_urls=true")).await.body["output"][0].clone();
    let output = output.as_str().unwrap();
    let file = upload(&service, b"content").await;
    let download = file.body["urls"]["download"].as_str().unwrap();
    let (files, away) = (service.data().join("files"), service.data().join("away"));
    fs::rename(&files, &away).unwrap();
    fs::write(&files, "no folder").unwrap();
    let edit = b"--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\n";
    let edit = [
        edit.as_slice(),
        PNG,
        b"\r\n--x\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na\r\n--x--\r\n",
    ]
    .concat();
    let edit = service
        .request("POST", "/v1/images/edits")
        .header("content-type", "multipart/form-data; boundary=x")
        .body(edit);
    is_later("edits", &read(edit).await);
    is_later("/v1/files", &upload(&service, b"content").await);
    for path in [done.as_str(), output, download] {
        is_later(path, &service.get(path).await);
    }
    assert_eq!(service.get("/v1/files").await.body["results"].as_array().unwrap().len(), 1);
    assert_eq!(ids(&service).await.len(), 1);
    let late = service.prediction(json!({})).await;
    service.begun(&late).await;
    // In one step: between a removal and a rename, the worker that waits would make the folder anew.
    let link = service.data().join("link");
    std::os::unix::fs::symlink(&away, &link).unwrap();
    fs::rename(&link, &files).unwrap();
    assert_eq!(service.over(&late).await["status"], "succeeded");
    for path in [output, download] {
        assert_eq!(service.get(path).await.status, 200, "{path}");
    }
}

/// Protects clients of a disk that is full: see [`on_a_full_disk`]. The test is started again with a small disk of its own; where the system does
/// not let it have one, a line says so.
#[test]
fn a_full_disk() {
    if let Some(disk) = std::env::var_os(DISK) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(on_a_full_disk(Path::new(&disk)));
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=8m tmpfs \"$1\" || exit 77; shift; exec \"$@\"";
    let (program, disk) = (std::env::current_exe().unwrap(), PathBuf::from(folder.path()));
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&disk).arg(program);
    let ended =
        command.args(["unavailable::a_full_disk", "--exact", "--nocapture"]).env(DISK, &disk).output();
    let Ok(ended) = ended else { return eprintln!("no unshare: a full disk is not tested") };
    let log = String::from_utf8_lossy(&ended.stderr);
    if ended.status.code() == Some(77) || log.contains("unshare failed") {
        return eprintln!("no disk of its own: a full disk is not tested");
    }
    assert!(ended.status.success(), "{}{log}", String::from_utf8_lossy(&ended.stdout));
}

/// A full disk makes nothing, neither of a job nor of an upload, and the service goes on when there is room.
async fn on_a_full_disk(disk: &Path) {
    let service = Service::with(|settings| (settings.workers, settings.data) = (0, disk.to_path_buf()));
    let kept = service.prediction(json!({ "prompt": "kept" })).await;
    let file = upload(&service, &[7; 10_000]).await;
    let ballast = disk.join("ballast");
    let mut all = fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut all, &[0; 4096]).is_ok() {}
    let large = json!({ "input": { "prompt": "x".repeat(20_000) } });
    for (path, body) in [(PREDICTIONS, &large), ("/predictions", &large)] {
        is_later(path, &service.post(path, body.clone()).await);
    }
    is_later("/v1/files", &upload(&service, &[7; 10_000]).await);
    // What needs no room still works.
    assert_eq!(service.get(&kept).await.body["input"]["prompt"], "kept");
    let download = file.body["urls"]["download"].as_str().unwrap();
    assert_eq!(service.get(download).await.status, 200);
    drop(all);
    fs::remove_file(ballast).unwrap();
    assert_eq!(ids(&service).await.len(), 1);
    assert_eq!(service.get("/v1/files").await.body["results"].as_array().unwrap().len(), 1);
    assert_eq!(service.post(PREDICTIONS, large).await.status, 201);
    assert_eq!(upload(&service, &[7; 10_000]).await.status, 201);
}
