//! What operators write on the command line.

#[cfg(unix)]
use std::fs;
use std::net::TcpListener;

use serde_json::json;

use crate::common::Sandbox;
use crate::service::Service;
#[cfg(unix)]
use crate::service::{Process, command, model};

/// Protects operators: the line that `calotype token` prints is what `calotype serve` reads, with its limits.
#[test]
fn a_token_with_limits() {
    let here = Sandbox::new();
    for (args, says) in [
        (
            ["token", "ana", "--requests=2", "--waiting=1"],
            "expected a number of requests, such as 10/s, 600/m or 3000/h, found \"2\"",
        ),
        (["serve", "--data", "data", "--upload-url=ftp://x"], "expected an http or https URL"),
    ] {
        here.assert_refused(&args, says);
    }
    let printed = here.run(&["token", "ana", "--rights", "read", "--requests", "2/h", "--waiting", "3"]);
    let (token, line) = printed.stdout.split_once('\n').expect("two lines");
    assert!(token.starts_with("ct_") && line.starts_with("ana read "), "{}", printed.stdout);
    assert!(line.ends_with(" requests=2/h waiting=3\n"), "{line}");
    here.write("tokens", line);
    let service = Service::start(&here, &["--token-file", "tokens", "--workers", "0"]);
    let ask = || {
        let request =
            ureq::get(format!("{}/v1/account", service.address)).config().http_status_as_error(false).build();
        request.header("authorization", format!("Bearer {token}")).call().expect("an answer")
    };
    let asked = [ask(), ask(), ask()].map(|answer| answer.status().as_u16());
    assert_eq!(asked, [200, 200, 429]);
}

/// Protects operators who look for their jobs: a service and a worker say where these are, and a service that is open to a network says so. Each
/// connection is an open file: the service takes as many as the system allows.
#[cfg(unix)]
#[test]
fn what_is_said_at_the_start() {
    let here = Sandbox::new();
    let model = model();
    let mut args = vec!["serve", "--data", "data", "--workers", "0", "--listen", "0.0.0.0:0"];
    args.extend(model.iter().map(String::as_str));
    let line = format!("ulimit -Sn 64; exec {} {}", env!("CARGO_BIN_EXE_calotype"), args.join(" "));
    let process = Process::start(here.command_of("sh", &["-c", &line]));
    let warning = process.line_with("warning: --listen 0.0.0.0: ");
    assert!(warning.contains("--token-file"), "{warning}");
    let places = process.line_with("model ");
    process.line_with("listening on http://0.0.0.0:");
    let data = here.path("data").canonicalize().expect("made");
    for place in ["calotype.sqlite", "files"] {
        assert!(places.contains(&format!(" in {}", data.join(place).display())), "{places}");
    }
    if let Ok(limits) = fs::read_to_string(format!("/proc/{}/limits", process.child.id())) {
        let files: Vec<&str> = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .expect("a line")
            .split_whitespace()
            .collect();
        assert_eq!(files[3], files[4], "{limits}");
    }
    let worker = Process::start(command(&here, "worker", &[]));
    assert!(worker.line_with("model ").contains(&format!(" in {}", data.join("calotype.sqlite").display())));
}

/// Protects operators from workers that wait for ever, and from files that hold no tokens: the start fails, and the message says why.
#[test]
fn what_is_refused_at_the_start() {
    let here = Sandbox::new();
    here.assert_refused(
        &["worker", "--data", "typo"],
        "--data typo: expected the folder of `calotype serve` with its calotype.sqlite, found none",
    );
    here.write("tokens", "token x\n");
    let says =
        "tokens: line 1: expected NAME RIGHTS HASH, found 2 words (`calotype token NAME` prints such a line";
    here.assert_refused(&["serve", "--data", "data", "--port", "0", "--token-file", "tokens"], says);
}

/// Protects operators who keep outputs elsewhere: with `--upload-url` the picture goes there, and its URL is the answer.
#[test]
fn an_upload_url() {
    use std::io::{Read, Write};
    let here = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/put", listener.local_addr().expect("an address"));
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let (mut heard, mut part) = (Vec::new(), [0; 4096]);
        // A PNG file ends with this chunk.
        while !heard.windows(4).any(|bytes| bytes == b"IEND") {
            let read = stream.read(&mut part).expect("read");
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&heard));
            heard.extend(&part[..read]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .expect("written");
        String::from_utf8_lossy(&heard).lines().next().expect("a line").to_owned()
    });
    let service = Service::start(&here, &["--upload-url", &url]);
    let input = json!({ "width": 32, "height": 32, "num_inference_steps": 1, "seed": 1 });
    let (_, done) = service.post("/predictions", &json!({ "input": input }));
    assert_eq!(done["output"], json!([format!("{url}/out-0.png")]), "{done}");
    assert_eq!(receiver.join().expect("no panic"), "PUT /put/out-0.png HTTP/1.1");
}
