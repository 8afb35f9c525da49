//! Fetches one file from the hub into the cache: requests continue after a broken connection, the file is
//! checked, and then gets its name.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::address::{encoded, part};
use super::cache::Repo;
use super::client::{Answer, Client, Problem};
use super::listing::Listed;
use super::names::{Commit, ModelName, Tag};
use super::pace::{self, paced};
use super::sums::Sum;
use crate::failure::Failure;
use crate::output;

/// The number of further requests for a file that makes no progress.
const RETRIES: u32 = 2;
/// After this many new bytes, the number of requests is counted anew.
const ENOUGH_PROGRESS: u64 = 32 << 20;
/// The most bytes of a file of unknown size, such as a config or a table.
const MAX_UNKNOWN_SIZE: u64 = 64 << 20;
/// The number of times that a file with a wrong checksum is fetched. It may have been damaged on the way.
const MAX_FETCHES: usize = 2;

/// The reason why a file could not be fetched.
#[derive(Debug)]
pub enum Fault {
    /// A fault of the hub or the network.
    Hub(Problem),
    /// A fault of this machine.
    Here(Failure),
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        Fault::Hub(problem)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        Fault::Here(failure)
    }
}

/// A model whose files are fetched.
pub struct Fetch<'a> {
    pub client: &'a Client,
    pub repo: &'a Repo,
    pub name: &'a ModelName<'a>,
    /// The longest time that a connection may be silent. Pauses follow from it.
    pub silence: Duration,
    pub quiet: bool,
}

/// A file that is being fetched.
struct Download<'a> {
    listed: &'a Listed,
    /// The file's path on the hub.
    path: String,
    tag: Tag,
    size: Option<u64>,
    sum: Option<Sum>,
    part: PathBuf,
}

impl Fetch<'_> {
    /// Makes sure that a complete file is in the cache. Returns the file's version: `commit`, or the hub's answer if the
    /// version is not known yet.
    pub fn file(&self, commit: Option<&Commit>, listed: &Listed) -> Result<Commit, Fault> {
        if let Some(commit) = commit.filter(|commit| self.is_there(commit, listed)) {
            return Ok(commit.clone());
        }
        let revision = commit.map_or_else(|| part(self.name.revision), Commit::to_string);
        let path = format!("/{}/resolve/{revision}/{}", self.name.repo, encoded(&listed.name));
        let wrong = |what: String| Problem::Invalid(format!("{}: {what}", listed.name));
        let first = self.patiently(|| self.client.get(&path, 0)).map_err(|problem| match problem {
            Problem::Refused(404) => wrong("listed, and not there (status 404)".into()),
            problem => problem,
        })?;
        let commit = match (commit, first.about.commit.as_ref()) {
            (Some(asked), Some(found)) if asked != found => {
                return Err(wrong(format!("X-Repo-Commit: expected {asked}, found {found}")).into());
            }
            (None, None) => {
                return Err(wrong("expected the version's X-Repo-Commit, found none".into()).into());
            }
            (Some(known), _) | (None, Some(known)) => known.clone(),
        };
        let tag = first.about.tag.clone().or_else(|| Tag::parse(listed.sum.as_ref()?.text()).ok());
        let tag = tag.ok_or_else(|| wrong("expected an ETag, found none".into()))?;
        let size = match (listed.size, first.about.size) {
            (Some(said), Some(found)) if said != found => {
                return Err(wrong(format!(
                    "expected {said} bytes, as the model's listing says, found {found}"
                ))
                .into());
            }
            (said, found) => said.or(found),
        };
        let sum = listed.sum.clone().or_else(|| Sum::sha256(&tag.to_string()));
        if size.is_none() && sum.is_none() && listed.name.ends_with(".safetensors") {
            return Err(wrong("the hub says neither its size nor its sum".into()).into());
        }
        let blob = self.repo.blob(&tag);
        let part = blob.with_file_name(format!("{tag}.incomplete"));
        let download = Download { listed, path, tag, size, sum, part };
        let _lock = self.repo.lock(&download.tag, || {
            self.print_line(&format!("{}: another process is fetching it", listed.name));
        })?;
        if !self.is_whole(&blob, &download) {
            self.fetch(&download, first)?;
            fs::rename(&download.part, &blob).map_err(|e| Failure::io(&blob, &e))?;
            if download.sum.is_some() {
                self.repo.note_right(&blob);
            }
        }
        self.repo.link(&commit, &listed.name, &download.tag)?;
        Ok(commit)
    }

    /// Says how many files are fetched, and how many bytes if the hub gives the sizes.
    pub fn announce(&self, commit: Option<&Commit>, files: &[Listed]) {
        let is_there = |file: &Listed| commit.is_some_and(|commit| self.is_there(commit, file));
        let lacking: Vec<&Listed> = files.iter().filter(|file| !is_there(file)).collect();
        let bytes = |file: &&Listed| Some(self.repo.lacking(file.size?, file.sum.as_ref()));
        let bytes: Option<u64> = lacking.iter().map(bytes).sum();
        let size = bytes.map_or(String::new(), |bytes| format!(", {}", DecimalBytes(bytes)));
        let count = match lacking.len() {
            0 => return,
            1 => "1 file".to_owned(),
            count => format!("{count} files"),
        };
        self.print_line(&format!("{}: fetching {count}{size}, once", self.name));
    }

    fn print_line(&self, line: &str) {
        if !self.quiet {
            output::note(line);
        }
    }

    /// Whether a file is in the cache, with the size and the checksum of the listing.
    fn is_there(&self, commit: &Commit, listed: &Listed) -> bool {
        let path = self.repo.folder(commit).join(&listed.name);
        let size = fs::metadata(&path).ok().filter(|found| found.is_file()).map(|found| found.len());
        let right = || match self.repo.blob_of(&path) {
            Some(blob) => self.repo.is_right(&blob, listed.sum.as_ref()),
            None => listed.sum.as_ref().is_none_or(|sum| sum.holds(&path).unwrap_or(false)),
        };
        size.is_some() && size == listed.size && right()
    }

    /// Whether a blob need not be fetched. If neither size nor checksum is known, it must be.
    fn is_whole(&self, blob: &Path, download: &Download) -> bool {
        let known = download.size.is_some() || download.sum.is_some();
        let fits = |size: u64| download.size.is_none_or(|expected| expected == size);
        known
            && fs::metadata(blob).is_ok_and(|found| found.is_file() && fits(found.len()))
            && self.repo.is_right(blob, download.sum.as_ref())
    }

    /// Fetches the whole file into its partial file, and checks its checksum.
    fn fetch(&self, download: &Download, first: Answer) -> Result<(), Fault> {
        let folder = download.part.parent().unwrap_or(&download.part);
        fs::create_dir_all(folder).map_err(|e| Failure::io(folder, &e))?;
        let bar = self.bar(download);
        let mut first = Some(first);
        for _ in 0..MAX_FETCHES {
            let received = self.receive(download, first.take(), &bar);
            if let Err(Fault::Hub(Problem::Invalid(_))) = received {
                let _ = fs::remove_file(&download.part); // its bytes are not trusted
            }
            received?;
            let right = download.sum.as_ref().map_or(Ok(true), |sum| sum.holds(&download.part));
            if right.map_err(|e| Failure::io(&download.part, &e))? {
                bar.finish_and_clear();
                return Ok(());
            }
            fs::remove_file(&download.part).map_err(|e| Failure::io(&download.part, &e))?;
        }
        let problem = "its sum is not the one that the hub says, twice: damaged on the way, or on the hub";
        Err(Problem::Invalid(format!("{}: {problem}", download.listed.name)).into())
    }

    /// Receives all bytes of a file, in as many requests as needed.
    fn receive(&self, download: &Download, first: Option<Answer>, bar: &ProgressBar) -> Result<(), Fault> {
        let opened = File::options().create(true).append(true).open(&download.part);
        let mut to = opened.map_err(|e| Failure::io(&download.part, &e))?;
        let mut have = to.metadata().map_err(|e| Failure::io(&download.part, &e))?.len();
        // If the size is not known, the existing bytes may not be a part of this file.
        if download.size.is_none_or(|size| have > size) {
            have = truncate(&to, 0, download)?;
        }
        let mut answer = first.filter(|_| have == 0);
        let (mut failures, mut before) = (0, have);
        while download.size != Some(have) || have == 0 {
            match self.piece(download, answer.take(), &mut to, &mut have, bar) {
                Ok(()) => break,
                Err(Fault::Hub(problem @ (Problem::Network(_) | Problem::Busy(..)))) => {
                    failures = if have >= before + ENOUGH_PROGRESS { 1 } else { failures + 1 };
                    before = have;
                    if failures > RETRIES {
                        return Err(problem.into());
                    }
                    self.pause(&problem, failures);
                }
                Err(fault) => return Err(fault),
            }
        }
        to.sync_all().map_err(|e| write_failure(&e, download).into())
    }

    /// Receives the bytes of one answer, to the end of the file or until the connection breaks.
    fn piece(
        &self,
        download: &Download,
        answer: Option<Answer>,
        to: &mut File,
        have: &mut u64,
        bar: &ProgressBar,
    ) -> Result<(), Fault> {
        let answer = match answer.map_or_else(|| self.client.get(&download.path, *have), Ok) {
            Err(Problem::Refused(416)) if *have > 0 => {
                *have = truncate(to, 0, download)?;
                self.client.get(&download.path, 0)?
            }
            answer => answer?,
        };
        if answer.about.tag.as_ref().is_some_and(|tag| *tag != download.tag) {
            return Err(
                Problem::Invalid(format!("{}: changed while it was fetched", download.listed.name)).into()
            );
        }
        if answer.start != *have {
            *have = truncate(to, answer.start, download)?; // a hub without ranges begins again
        }
        let limit = download.size.unwrap_or(MAX_UNKNOWN_SIZE);
        let mut body = paced(answer.body, download.size.is_none().then_some(pace::SHORT));
        let mut piece = vec![0; 1 << 18];
        loop {
            let read = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.broken(download, &e.to_string(), *have).into()),
            };
            if *have + read as u64 > limit {
                let problem = format!("{}: expected {limit} bytes, found more", download.listed.name);
                return Err(Problem::Invalid(problem).into());
            }
            to.write_all(&piece[..read]).map_err(|e| write_failure(&e, download))?;
            *have += read as u64;
            bar.set_position(*have);
        }
        match download.size {
            Some(size) if *have < size => Err(self.broken(download, "it ended", *have).into()),
            _ => Ok(()),
        }
    }

    fn broken(&self, download: &Download, what: &str, have: u64) -> Problem {
        let what = match what.contains("timeout") || what.contains("timed out") {
            true => format!("nothing more came for {:?}", self.silence),
            false => what.to_owned(),
        };
        let of = download.size.map_or(String::new(), |size| format!(" of {size}"));
        Problem::Network(format!(
            "{}: {what}, after {have}{of} bytes; run again to go on",
            download.listed.name
        ))
    }

    /// Asks again if the hub is busy.
    pub fn patiently<T>(&self, ask: impl Fn() -> Result<T, Problem>) -> Result<T, Problem> {
        for failures in 1..=RETRIES {
            match ask() {
                Err(problem @ Problem::Busy(..)) => self.pause(&problem, failures),
                answer => return answer,
            }
        }
        ask()
    }

    /// Waits as long as the hub says, but not longer than a connection may be silent.
    fn pause(&self, problem: &Problem, failures: u32) {
        let pause = match problem {
            Problem::Busy(_, Some(seconds)) => Duration::from_secs(*seconds),
            _ => self.silence / 10 * failures,
        };
        std::thread::sleep(pause.min(self.silence));
    }

    fn bar(&self, download: &Download) -> ProgressBar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar =
            ProgressBar::with_draw_target(download.size, target).with_message(download.listed.name.clone());
        match ProgressStyle::with_template("{msg} {bytes}/{total_bytes} {bar:30} {bytes_per_sec}, {eta} left")
        {
            Ok(style) => bar.with_style(style.progress_chars("█▉▊▋▌▍▎▏ ")),
            Err(_) => bar,
        }
    }
}

/// Truncates a partial file to `size` bytes.
fn truncate(part: &File, size: u64, download: &Download) -> Result<u64, Failure> {
    part.set_len(size).map(|()| size).map_err(|e| Failure::io(&download.part, &e))
}

/// The error of a partial file that cannot be written.
fn write_failure(e: &io::Error, download: &Download) -> Failure {
    let size = download.size.map_or(String::new(), |size| format!(" ({size} bytes)"));
    match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Failure::Failed(format!(
            "{}: the disk is too full for {}{size}: make room and run again, which goes on from there",
            download.part.display(),
            download.listed.name
        )),
        _ => Failure::io(&download.part, e),
    }
}
