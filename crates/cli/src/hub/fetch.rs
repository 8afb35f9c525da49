//! One file from the hub into the cache: asked for again where the line broke, checked, and then given its name.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::address::encoded;
use super::cache::Repo;
use super::client::{Answer, Client, Problem};
use super::listing::Listed;
use super::names::{Commit, Tag};
use super::pace::{self, paced};
use super::sums::Sum;
use crate::failure::Failure;
use crate::output;

/// How often a file is asked for again that does not come on.
const RETRIES: u32 = 2;
/// A file that came on by this much may be asked for again as often.
const COMES_ON: u64 = 32 << 20;
/// Of a file whose size nobody says: a config or a table.
const MAX_UNSAID: u64 = 64 << 20;
/// How often a file is fetched whose sum is wrong: it may have been damaged on the way.
const MAX_FETCHES: usize = 2;

/// Why a file is not here.
#[derive(Debug)]
pub enum Fault {
    /// The hub's, or the network's.
    Hub(Problem),
    /// This machine's.
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
    /// `OWNER/NAME`.
    pub name: &'a str,
    /// How long a line may be silent; pauses follow from it.
    pub silence: Duration,
    pub quiet: bool,
}

/// A file that is on its way.
struct Coming<'a> {
    listed: &'a Listed,
    /// Its path on the hub.
    path: String,
    tag: Tag,
    size: Option<u64>,
    sum: Option<Sum>,
    part: PathBuf,
}

impl Fetch<'_> {
    /// Makes sure that a file is in the cache, whole, and gives the version that it belongs to: `commit`, or what the hub
    /// says where that is not known yet.
    pub fn file(&self, commit: Option<&Commit>, listed: &Listed) -> Result<Commit, Fault> {
        if let Some(commit) = commit.filter(|commit| self.is_there(commit, listed)) {
            return Ok(commit.clone());
        }
        let revision = commit.map_or("main".into(), Commit::to_string);
        let path = format!("/{}/resolve/{revision}/{}", self.name, encoded(&listed.name));
        let wrong = |what: String| Problem::Wrong(format!("{}: {what}", listed.name));
        let first = self.patiently(|| self.client.get(&path, 0)).map_err(|problem| match problem {
            Problem::Refused(404) => wrong("listed, and not there (status 404)".into()),
            problem => problem,
        })?;
        let commit = commit.or(first.about.commit.as_ref()).cloned();
        let commit =
            commit.ok_or_else(|| wrong("expected the version's X-Repo-Commit, found none".into()))?;
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
        let coming = Coming { listed, path, tag, size, sum, part };
        let _lock = self.repo.lock(&coming.tag, || {
            self.say(&format!("{}: another process is fetching it", listed.name));
        })?;
        if !self.is_whole(&blob, &coming) {
            self.fetch(&coming, first)?;
            fs::rename(&coming.part, &blob).map_err(|e| Failure::io(&blob, &e))?;
            if coming.sum.is_some() {
                self.repo.note_right(&blob);
            }
        }
        self.repo.link(&commit, &listed.name, &coming.tag)?;
        Ok(commit)
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            output::note(line);
        }
    }

    /// Whether a file is here with the size and the sum of the listing.
    fn is_there(&self, commit: &Commit, listed: &Listed) -> bool {
        let path = self.repo.folder(commit).join(&listed.name);
        let size = fs::metadata(&path).ok().filter(|found| found.is_file()).map(|found| found.len());
        let right = || match self.repo.blob_of(&path) {
            Some(blob) => self.repo.is_right(&blob, listed.sum.as_ref()),
            None => listed.sum.as_ref().is_none_or(|sum| sum.holds(&path).unwrap_or(false)),
        };
        size.is_some() && size == listed.size && right()
    }

    /// Whether a blob needs not be fetched. One of which nothing is known is.
    fn is_whole(&self, blob: &Path, coming: &Coming) -> bool {
        let known = coming.size.is_some() || coming.sum.is_some();
        let fits = |size: u64| coming.size.is_none_or(|expected| expected == size);
        known
            && fs::metadata(blob).is_ok_and(|found| found.is_file() && fits(found.len()))
            && self.repo.is_right(blob, coming.sum.as_ref())
    }

    /// The whole file into its part, with the sum that it should have.
    fn fetch(&self, coming: &Coming, first: Answer) -> Result<(), Fault> {
        let folder = coming.part.parent().unwrap_or(&coming.part);
        fs::create_dir_all(folder).map_err(|e| Failure::io(folder, &e))?;
        let bar = self.bar(coming);
        let mut first = Some(first);
        for _ in 0..MAX_FETCHES {
            let received = self.receive(coming, first.take(), &bar);
            if let Err(Fault::Hub(Problem::Wrong(_))) = received {
                let _ = fs::remove_file(&coming.part); // whose bytes are not to be trusted
            }
            received?;
            let right = coming.sum.as_ref().map_or(Ok(true), |sum| sum.holds(&coming.part));
            if right.map_err(|e| Failure::io(&coming.part, &e))? {
                bar.finish_and_clear();
                return Ok(());
            }
            fs::remove_file(&coming.part).map_err(|e| Failure::io(&coming.part, &e))?;
        }
        let problem = "its sum is not the one that the hub says, twice: damaged on the way, or on the hub";
        Err(Problem::Wrong(format!("{}: {problem}", coming.listed.name)).into())
    }

    /// All bytes of a file, in as many requests as it takes.
    fn receive(&self, coming: &Coming, first: Option<Answer>, bar: &ProgressBar) -> Result<(), Fault> {
        let opened = File::options().create(true).append(true).open(&coming.part);
        let mut to = opened.map_err(|e| Failure::io(&coming.part, &e))?;
        let mut have = to.metadata().map_err(|e| Failure::io(&coming.part, &e))?.len();
        // Of a file whose size is not known, it is not known either whether this is a part of it.
        if coming.size.is_none_or(|size| have > size) {
            have = shortened(&to, 0, coming)?;
        }
        let mut answer = first.filter(|_| have == 0);
        let (mut troubles, mut before) = (0, have);
        while coming.size != Some(have) || have == 0 {
            match self.piece(coming, answer.take(), &mut to, &mut have, bar) {
                Ok(()) => break,
                Err(Fault::Hub(problem @ (Problem::Line(_) | Problem::Busy(..)))) => {
                    troubles = if have >= before + COMES_ON { 1 } else { troubles + 1 };
                    before = have;
                    if troubles > RETRIES {
                        return Err(problem.into());
                    }
                    self.pause(&problem, troubles);
                }
                Err(fault) => return Err(fault),
            }
        }
        to.sync_all().map_err(|e| full(&e, coming).into())
    }

    /// What one answer has of a file: to its end, or as far as the line goes.
    fn piece(
        &self,
        coming: &Coming,
        answer: Option<Answer>,
        to: &mut File,
        have: &mut u64,
        bar: &ProgressBar,
    ) -> Result<(), Fault> {
        let answer = match answer.map_or_else(|| self.client.get(&coming.path, *have), Ok) {
            Err(Problem::Refused(416)) if *have > 0 => {
                *have = shortened(to, 0, coming)?;
                self.client.get(&coming.path, 0)?
            }
            answer => answer?,
        };
        if answer.about.tag.as_ref().is_some_and(|tag| *tag != coming.tag) {
            return Err(
                Problem::Wrong(format!("{}: changed while it was fetched", coming.listed.name)).into()
            );
        }
        if answer.start != *have {
            *have = shortened(to, answer.start, coming)?; // a hub without ranges begins again
        }
        let limit = coming.size.unwrap_or(MAX_UNSAID);
        let mut body = paced(answer.body, coming.size.is_none().then_some(pace::SHORT));
        let mut piece = vec![0; 1 << 18];
        loop {
            let read = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.broken(coming, &e.to_string(), *have).into()),
            };
            if *have + read as u64 > limit {
                let problem = format!("{}: expected {limit} bytes, found more", coming.listed.name);
                return Err(Problem::Wrong(problem).into());
            }
            to.write_all(&piece[..read]).map_err(|e| full(&e, coming))?;
            *have += read as u64;
            bar.set_position(*have);
        }
        match coming.size {
            Some(size) if *have < size => Err(self.broken(coming, "it ended", *have).into()),
            _ => Ok(()),
        }
    }

    fn broken(&self, coming: &Coming, what: &str, have: u64) -> Problem {
        let what = match what.contains("timeout") || what.contains("timed out") {
            true => format!("nothing more came for {:?}", self.silence),
            false => what.to_owned(),
        };
        let of = coming.size.map_or(String::new(), |size| format!(" of {size}"));
        Problem::Line(format!("{}: {what}, after {have}{of} bytes; run again to go on", coming.listed.name))
    }

    /// Asks again where the hub is busy.
    pub fn patiently<T>(&self, ask: impl Fn() -> Result<T, Problem>) -> Result<T, Problem> {
        for troubles in 1..=RETRIES {
            match ask() {
                Err(problem @ Problem::Busy(..)) => self.pause(&problem, troubles),
                answer => return answer,
            }
        }
        ask()
    }

    /// As long as the hub says, but not longer than it may be silent.
    fn pause(&self, problem: &Problem, troubles: u32) {
        let pause = match problem {
            Problem::Busy(_, Some(seconds)) => Duration::from_secs(*seconds),
            _ => self.silence / 10 * troubles,
        };
        std::thread::sleep(pause.min(self.silence));
    }

    fn bar(&self, coming: &Coming) -> ProgressBar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(coming.size, target).with_message(coming.listed.name.clone());
        match ProgressStyle::with_template("{msg} {bytes}/{total_bytes} {bar:30} {bytes_per_sec}, {eta} left")
        {
            Ok(style) => bar.with_style(style.progress_chars("█▉▊▋▌▍▎▏ ")),
            Err(_) => bar,
        }
    }
}

/// Takes away what a part has beyond `size`.
fn shortened(part: &File, size: u64, coming: &Coming) -> Result<u64, Failure> {
    part.set_len(size).map(|()| size).map_err(|e| Failure::io(&coming.part, &e))
}

/// A part that cannot be written.
fn full(e: &io::Error, coming: &Coming) -> Failure {
    let size = coming.size.map_or(String::new(), |size| format!(" ({size} bytes)"));
    match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Failure::Failed(format!(
            "{}: the disk is too full for {}{size}: make room and run again, which goes on from there",
            coming.part.display(),
            coming.listed.name
        )),
        _ => Failure::io(&coming.part, e),
    }
}
