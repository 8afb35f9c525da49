//! `calotype serve`: predictions and trainings over HTTP.
//!
//! ```text
//! args.rs    the options that a worker has too
//! start.rs   what is said at the start
//! ```

mod args;
mod start;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use calotype_serve::settings::Settings;
use calotype_tensor::cpu;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use ureq::http::Uri;

pub use self::args::{Only, SharedArgs, failure};
pub use self::start::places;
use crate::args::Verbosity;
use crate::failure::Failure;
use crate::{output, pocket};

/// Where the service listens, unless `--listen` or `--port` says otherwise.
const PORT: u16 = 5000;

#[derive(Debug, Args)]
struct ServeArgs {
    /// The address to listen on: all of this machine's are 0.0.0.0 [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = address)]
    listen: Option<(IpAddr, Option<u16>)>,
    /// The port to listen on; 0: a free one [default: 5000]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// File of tokens, one on each line as `calotype token` prints it; clients need one of them, and each sees the jobs of all [default:
    /// clients need none]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The address under which clients reach the service, for the addresses of files in its answers [default: as the client says].
    /// Without --token-file, a request whose Host is a name with a dot is refused unless the name is that of this address or of a --cors:
    /// otherwise a website could take the service's address for its own name (DNS rebinding)
    #[arg(long, value_name = "URL", value_parser = public_url)]
    public_url: Option<String>,
    /// Send outputs of Cog's API to this URL, each file with PUT to URL/NAME, and answer with the URLs that it has there [default: answers
    /// have the files]
    #[arg(long, value_name = "URL", value_parser = web_address)]
    upload_url: Option<String>,
    /// The most jobs that wait, of each kind; others are told to come back
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    max_queue: u32,
    /// Days after which jobs that are over go, with their files [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Predictions that compute at the same time, beside one training; 0: none here, `calotype worker` computes
    #[arg(long, value_name = "N", default_value = "1")]
    workers: u16,
    /// What a second of computing costs, for the prices that the page shows
    #[arg(long, value_name = "DOLLARS", default_value = "0", value_parser = dollars)]
    price_per_second: f64,
    /// Pages of this origin may use the service, such as https://example.org, or * for all; may be given several times
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    cors: Vec<String>,
    #[command(flatten)]
    shared: SharedArgs,
}

/// The command's options.
pub fn options(command: Command) -> Command {
    // The about comes last, because the arguments' doc comment would replace it.
    ServeArgs::augment_args(command)
        .about("Serve predictions and trainings over HTTP, with a page for people")
}

/// Serves until a signal ends it.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let args = ServeArgs::from_arg_matches(matches).map_err(|e| crate::args::in_one_line(&e))?;
    let quiet = Verbosity::of(matches) == Verbosity::Quiet;
    let settings = args.settings()?;
    let engine = args.shared.engine(args.workers, quiet)?;
    let unasked = args.shared.is_unasked();
    start::raise_open_files();
    cpu::keep_heap_small();
    if let Some(warning) = start::warning(&settings) {
        tracing::warn!("{warning}");
    }
    let places = places(&settings, &engine.model());
    let ready = move |address: SocketAddr| {
        if !quiet {
            if unasked {
                output::note(pocket::NOTICE);
            }
            output::note(&places);
            output::note(&format!("listening on http://{address}"));
        }
    };
    calotype_serve::serve(settings, engine, ready).map_err(failure)
}

impl ServeArgs {
    fn settings(&self) -> Result<Settings, Failure> {
        let (address, port) = self.listen.unwrap_or((IpAddr::from([127, 0, 0, 1]), None));
        if let (Some(one), Some(other)) = (port, self.port) {
            let problem =
                format!("--port {other}: expected no port beside that of --listen, found {one} there");
            return Err(Failure::BadInput(problem));
        }
        Ok(Settings {
            listen: SocketAddr::new(address, port.or(self.port).unwrap_or(PORT)),
            token_file: self.token_file.clone(),
            public_url: self.public_url.clone(),
            upload_url: self.upload_url.clone(),
            max_queue: self.max_queue as usize,
            keep_days: self.keep,
            workers: self.workers.into(),
            price_per_second: self.price_per_second,
            cors: self.cors.clone(),
            ..self.shared.settings()?
        })
    }
}

fn address(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let whole = text.parse::<SocketAddr>().map(|address| (address.ip(), Some(address.port())));
    let alone = text.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| (address, None));
    whole.or(alone).map_err(|_| "expected an address, such as 0.0.0.0 or 127.0.0.1:8080".into())
}

/// A place for files: with a name behind it, it is the URL of one.
fn web_address(text: &str) -> Result<String, String> {
    let says = || "expected an http or https URL, without ? and #".into();
    path(text).map(|_| text.to_owned()).ok_or_else(says)
}

fn public_url(text: &str) -> Result<String, String> {
    let says = || "expected an address such as https://pictures.example.org, without ? and #".into();
    path(text).map(|_| text.to_owned()).ok_or_else(says)
}

/// An origin as browsers send it.
fn origin(text: &str) -> Result<String, String> {
    let is_origin = text == "*" || path(text).is_some_and(str::is_empty);
    let says = || "expected an origin such as https://example.org, without a path, or *".into();
    is_origin.then(|| text.to_ascii_lowercase()).ok_or_else(says)
}

/// The path of an http or https URL. `None`: the text is no such URL, or has a query, a fragment or a user.
fn path(text: &str) -> Option<&str> {
    let uri = text.parse::<Uri>().ok()?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let is_plain = !text.contains(['?', '#', '@']) && uri.host().is_some_and(|host| !host.is_empty());
    is_plain.then(|| &rest[rest.find('/').unwrap_or(rest.len())..])
}

fn dollars(text: &str) -> Result<f64, String> {
    let price = text.parse::<f64>().ok().filter(|price| price.is_finite() && *price >= 0.0);
    price.ok_or_else(|| "expected a number, at least 0".into())
}
