//! What an operator decides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of `calotype serve` and `calotype worker`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address to listen on. A worker alone does not listen.
    pub listen: SocketAddr,
    /// The folder with the database and the files, where these are not elsewhere.
    pub data: PathBuf,
    /// `postgres://…`. `None`: SQLite in `data`.
    pub database: Option<String>,
    /// `s3://bucket/prefix`. `None`: files in `data`.
    pub storage: Option<String>,
    /// A file of tokens: a line is `NAME RIGHTS SHA256-OF-TOKEN`. `None`: no token is asked for.
    pub token_file: Option<PathBuf>,
    /// The address under which clients reach the service, for the URLs in its answers. Without tokens, the service answers to its host, too.
    /// `None`: as the request says.
    pub public_url: Option<String>,
    /// Where outputs of Cog's API are sent, with `PUT`, to have URLs of that place. `None`: they stay here.
    pub upload_url: Option<String>,
    /// The most bytes of requests' bodies in memory at once: 256 MiB. Uploads of files, which go to the disk, do not count.
    pub max_bodies: usize,
    /// The most jobs that wait, of each kind.
    pub max_queue: usize,
    /// Days that jobs which are over, and their files, are kept. `None`: for ever.
    pub keep_days: Option<u32>,
    /// Jobs of a worker process: 0 makes `serve` a front without a worker.
    pub workers: usize,
    /// Dollars a second, for the price that the page shows. 0: no price.
    pub price_per_second: f64,
    /// Origins of pages that may use the service from browsers. Empty: none but its own.
    pub cors: Vec<String>,
    /// Folders that stand for URLs with a prefix: `(PREFIX, DIR)`. Inputs under the prefix are read from the folder.
    pub map_urls: Vec<(String, PathBuf)>,
    /// Networks that inputs may be fetched from although they are private: none unless asked for.
    pub allow_private_networks: bool,
    /// How long a worker may be silent before another takes its job: 30 s.
    pub lease: Duration,
    /// The largest file that may be uploaded or fetched, in bytes: 2 GiB.
    pub max_file: u64,
    /// The kinds that a worker takes.
    pub kinds: Vec<crate::job::Kind>,
    /// Whether the worker ends after one job, or where no job waits.
    pub once: bool,
    /// The name under which this process takes jobs from the queue.
    pub node: String,
}

impl Settings {
    /// The defaults: everything in a folder, on this machine alone.
    pub fn in_folder(data: impl Into<PathBuf>) -> Settings {
        Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            data: data.into(),
            database: None,
            storage: None,
            token_file: None,
            public_url: None,
            upload_url: None,
            max_bodies: 256 << 20,
            max_queue: 100,
            keep_days: None,
            workers: 1,
            price_per_second: 0.0,
            cors: Vec::new(),
            map_urls: Vec::new(),
            allow_private_networks: false,
            lease: Duration::from_secs(30),
            max_file: 2 << 30,
            kinds: crate::job::Kind::ALL.to_vec(),
            once: false,
            node: "local".into(),
        }
    }
}
