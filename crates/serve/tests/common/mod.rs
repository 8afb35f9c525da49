//! Databases for the tests: SQLite in a temporary folder, Postgres in a cluster of its own.

#![allow(dead_code, reason = "each test file uses a part")]

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use calotype_serve::job::{Kind, NewJob};
use calotype_serve::queue::Queue;
use calotype_serve::settings::Settings;
use serde_json::json;
use tempfile::TempDir;

/// Settings with a database, and otherwise what `calotype serve` begins with.
pub fn settings(data: &Path, database: Option<String>) -> Settings {
    Settings { database, ..Settings::in_folder(data) }
}

/// A prediction without a webhook.
pub fn job(id: &str) -> NewJob {
    let serde_json::Value::Object(input) = json!({"prompt": "an astronaut"}) else { unreachable!() };
    NewJob {
        id: id.into(),
        kind: Kind::Prediction,
        owner: "local".into(),
        model: "stability-ai/sdxl".into(),
        version: "39ed52f2".into(),
        input,
        destination: None,
        webhook: None,
        webhook_events: Vec::new(),
        source: "api".into(),
        cancel_after: None,
        context: Default::default(),
    }
}

/// A database of its own, which goes away with the value.
pub struct Bench {
    pub settings: Settings,
    _data: TempDir,
}

impl Bench {
    /// A file of SQLite.
    pub fn sqlite() -> Bench {
        let data = tempfile::tempdir().unwrap();
        Bench { settings: settings(data.path(), None), _data: data }
    }

    /// A schema `name` of a cluster's database, which is sooner made than a database.
    pub fn postgres(cluster: &Cluster, name: &str) -> Bench {
        let data = tempfile::tempdir().unwrap();
        cluster.sql("public", &format!("CREATE SCHEMA \"{name}\""));
        Bench { settings: settings(data.path(), Some(cluster.url(name))), _data: data }
    }

    /// Another handle, as another process would have.
    pub async fn open(&self) -> Queue {
        Queue::open(&self.settings).await.unwrap()
    }
}

/// A cluster of Postgres in a temporary folder, on a port of the loopback device.
pub struct Cluster {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Makes and starts a cluster. `None`, and a line that says so: no Postgres is installed, and
    /// `CALOTYPE_TEST_POSTGRES=required` is not set.
    pub fn start() -> Option<Cluster> {
        let Some(programs) = programs() else {
            assert!(
                std::env::var("CALOTYPE_TEST_POSTGRES").as_deref() != Ok("required"),
                "CALOTYPE_TEST_POSTGRES=required, and there is no /usr/lib/postgresql/*/bin/initdb"
            );
            eprintln!("Postgres is not installed: not tested");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut cluster = Cluster { folder, programs, port, server: None };
        if is_root() {
            let (user, group) = (id("-u", "postgres"), id("-g", "postgres"));
            std::os::unix::fs::chown(cluster.folder.path(), Some(user), Some(group)).unwrap();
        }
        let data = cluster.data();
        let made = cluster
            .command("initdb")
            .args(["-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        cluster.resume();
        Some(cluster)
    }

    /// Starts the server, and waits until it answers.
    pub fn resume(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let (data, port) = (self.data(), self.port.to_string());
        let options =
            ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="];
        let server = self
            .command("postgres")
            .arg("-D")
            .arg(data)
            .args(["-p", &port])
            .args(options)
            .stderr(log)
            .spawn();
        self.server = Some(server.unwrap());
        let end = Instant::now() + Duration::from_secs(60);
        while !self
            .command("pg_isready")
            .args(["-q", "-h", "127.0.0.1", "-p", &port])
            .status()
            .unwrap()
            .success()
        {
            assert!(Instant::now() < end, "{}", fs::read_to_string(self.folder.path().join("log")).unwrap());
        }
    }

    /// Stops the server at once, as a crash does.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let stopped = self
                .command("pg_ctl")
                .args(["stop", "-m", "immediate", "-D"])
                .arg(self.data())
                .output()
                .unwrap();
            assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
            server.wait().unwrap();
        }
    }

    /// Runs SQL in a database, and returns what it prints.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let output =
            self.command("psql").args(["-qtAX", "-c", sql]).arg(self.url(database)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The address of a schema.
    pub fn url(&self, schema: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?options=-csearch_path%3D{schema}", self.port)
    }

    /// Has the server answer with TLS from now on, with a certificate for 127.0.0.1. `false`: there is no openssl.
    pub fn make_certificate(&self) -> bool {
        let data = self.data();
        let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test \
            -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout server.key -out server.crt";
        let mut command = self.as_user(Path::new("openssl"));
        command.args(request.split_whitespace()).current_dir(&data).stderr(Stdio::null());
        if !command.status().is_ok_and(|status| status.success()) {
            return false;
        }
        let mut options = File::options().append(true).open(data.join("postgresql.conf")).unwrap();
        options.write_all(b"ssl = on\n").unwrap();
        self.sql("public", "SELECT pg_reload_conf()");
        while self.sql("public", "SHOW ssl") != "on" {}
        true
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of Postgres, as a user that is not root: root may not start a server. The server ends with this thread.
    fn command(&self, program: &str) -> Command {
        self.as_user(&self.programs.join(program))
    }

    fn as_user(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        if is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.arg("--pdeathsig=INT").arg(program).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).env("LC_ALL", "C");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Without a look at the outcome: a test may be failing already.
            let _ = self.command("pg_ctl").args(["stop", "-m", "immediate", "-D"]).arg(self.data()).output();
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The programs of the newest Postgres that Debian's packages have installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let programs =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    programs
        .max_by_key(|bin| bin.parent().and_then(|version| version.file_name()?.to_str()?.parse::<u32>().ok()))
}

fn is_root() -> bool {
    id("-u", "") == 0
}

/// What the program `id` says of a user, or of this process.
fn id(what: &str, user: &str) -> u32 {
    let output = Command::new("id").arg(what).args((!user.is_empty()).then_some(user)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Waits until the database's clock shows the time `time`.
pub async fn wait_for(queue: &Queue, time: i64) {
    while queue.now().await.unwrap() < time {
        tokio::task::yield_now().await;
    }
}
