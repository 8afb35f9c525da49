//! What operators write on the command line.

use std::net::TcpListener;

use serde_json::json;

use crate::common::Sandbox;
use crate::service::Service;

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
