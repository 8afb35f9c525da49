//! `calotype token`: a new token for clients of `calotype serve`.

use calotype_serve::api::limits::Rate;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::failure::Failure;
use crate::output;

/// The random bytes of a token.
const BYTES: usize = 24;

#[derive(Debug, Args)]
struct TokenArgs {
    /// Whose token it is, for the file and for logs
    #[arg(value_name = "NAME", value_parser = one_word)]
    name: String,
    /// What the token allows
    #[arg(long, value_enum, default_value = "write")]
    rights: Rights,
    /// The most requests in a second, a minute or an hour, such as 10/s, 600/m or 3000/h [default: any number]
    #[arg(long, value_name = "N/UNIT")]
    requests: Option<Rate>,
    /// The most jobs of this name that wait [default: as many as the queue takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    waiting: Option<u32>,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rights {
    /// To see jobs, files and models
    Read,
    /// Also to make and cancel jobs
    Write,
    /// Also to end the service
    Admin,
}

/// The command's options.
pub fn options(command: Command) -> Command {
    // The about comes last, because the arguments' doc comment would replace it.
    TokenArgs::augment_args(command)
        .about("Print a new token, and its line for the file of `calotype serve --token-file`")
}

/// Prints the token, and the line with its SHA-256. The token itself is in no file.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let args = TokenArgs::from_arg_matches(matches).map_err(|e| crate::args::in_one_line(&e))?;
    let mut random = [0; BYTES];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| Failure::Failed("the system has no random numbers".into()))?;
    let token = format!("ct_{}", hex(&random));
    let rights = match args.rights {
        Rights::Read => "read",
        Rights::Write => "write",
        Rights::Admin => "admin",
    };
    let sum = hex(digest(&SHA256, token.as_bytes()).as_ref());
    let requests = args.requests.map(|rate| format!(" requests={rate}")).unwrap_or_default();
    let waiting = args.waiting.map(|jobs| format!(" waiting={jobs}")).unwrap_or_default();
    output::print(&format!("{token}\n{} {rights} {sum}{requests}{waiting}\n", args.name))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name that is one word in a line.
/// The most characters of a name.
const MAX_NAME: usize = 64;

fn one_word(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    match (1..=MAX_NAME).contains(&text.len()) && text.chars().all(is_plain) {
        true => Ok(text.into()),
        false => Err(format!("expected a name of 1 to {MAX_NAME} letters, digits and -_.@")),
    }
}
