//! Output: files in the output directory, and text on stdout.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use calotype_train::files;

use crate::failure::Failure;
use crate::log;

pub use calotype_train::files::{TEMPORARY, parent};

/// Writes `text` to stdout. It is not an error if the reader has gone away.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::Failed(format!("stdout: {e}"))),
        _ => Ok(()),
    }
}

/// Writes a line to stderr, [cleaned](log::clean). Errors are ignored.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{}", log::clean(line));
}

/// The directory for results. It is made when the first file is written.
#[derive(Debug)]
pub struct OutputDir {
    path: PathBuf,
}

impl OutputDir {
    /// Checks, before any work is done, that files can be written to `path`, or that it can be made. Leaves nothing behind.
    ///
    /// # Errors
    /// `path`, or the directory in which it would be made, is not a directory or cannot be written to.
    pub fn check(path: &Path) -> Result<OutputDir, Failure> {
        check_folder("-o", path)?;
        Ok(OutputDir { path: path.into() })
    }

    /// Writes the next `out-<n>.<extension>`, where n is one more than the highest existing number, plus `skipped`. The file appears complete
    /// or not at all, and never replaces another.
    ///
    /// # Errors
    /// The directory or the file cannot be written.
    pub fn write(
        &self,
        extension: &str,
        skipped: u64,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<PathBuf, Failure> {
        self.try_write(extension, skipped, write)
            .map_err(|e| Failure::Failed(format!("{}: {}", self.path.display(), message(e))))
    }

    fn try_write(
        &self,
        extension: &str,
        skipped: u64,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.path)?;
        let mut file = files::temporary(&self.path)?;
        write(file.as_file_mut())?;
        for n in self.next_number(extension)?.saturating_add(skipped).. {
            let name = format!("out-{n}.{extension}");
            let path = if self.path == Path::new(".") { name.into() } else { self.path.join(name) };
            match file.persist_noclobber(&path) {
                Ok(_) => return Ok(path),
                Err(e) if e.error.kind() == ErrorKind::AlreadyExists => file = e.file,
                Err(e) => return Err(e.error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Writes a preview of the picture that [`Self::write`] will give the next number plus `i`: `out-<n>.preview.png`, or where
    /// that exists, the first of `out-<n>.preview-2.png`, `out-<n>.preview-3.png` … that does not.
    ///
    /// # Errors
    /// The directory or the file cannot be written.
    pub fn write_preview(
        &self,
        i: usize,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<PathBuf, Failure> {
        let written = || -> io::Result<PathBuf> {
            fs::create_dir_all(&self.path)?;
            let n = self.next_number("png")?.saturating_add(i as u64);
            let mut file = files::temporary(&self.path)?;
            files::write_buffered(file.as_file(), write)?;
            let more = (2..).map(|k: u32| format!("-{k}"));
            for more in std::iter::once(String::new()).chain(more) {
                let path = self.path.join(format!("out-{n}.preview{more}.png"));
                match file.persist_noclobber(&path) {
                    Ok(_) => return Ok(path),
                    Err(e) if e.error.kind() == ErrorKind::AlreadyExists => file = e.file,
                    Err(e) => return Err(e.error),
                }
            }
            Err(ErrorKind::AlreadyExists.into())
        };
        written().map_err(|e| Failure::Failed(format!("{}: {}", self.path.display(), message(e))))
    }

    /// One more than the highest n of existing `out-<n>.<extension>`, or 0.
    fn next_number(&self, extension: &str) -> io::Result<u64> {
        let mut next = 0;
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name
                .to_str()
                .and_then(|n| n.strip_prefix("out-")?.strip_suffix(extension)?.strip_suffix('.'));
            if let Some(n) = number.and_then(|n| n.parse::<u64>().ok()) {
                next = next.max(n.saturating_add(1));
            }
        }
        Ok(next)
    }
}

/// Checks that files can be written to the folder that `option` names, or that it can be made. Leaves nothing behind.
///
/// # Errors
/// As [`OutputDir::check`].
pub fn check_folder(option: &str, path: &Path) -> Result<(), Failure> {
    let bad =
        |what: &dyn std::fmt::Display| Failure::BadInput(format!("{option} {}: {what}", path.display()));
    for ancestor in path.ancestors() {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match fs::metadata(ancestor) {
            Ok(found) if found.is_dir() => {
                return match tempfile::tempfile_in(ancestor) {
                    Ok(_) => Ok(()),
                    Err(e) => Err(bad(&format!("cannot write here: {}", message(e)))),
                };
            }
            Ok(_) => return Err(bad(&"not a directory")),
            Err(e) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => {
                if let Some(target) = dangling(ancestor) {
                    return Err(bad(&format!("{} is {target}", ancestor.display())));
                }
            }
            Err(e) => return Err(bad(&message(e))),
        }
    }
    Err(bad(&"no such directory"))
}

/// The way in which the bytes for a path are written.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// As a complete file, which replaces an earlier one.
    File(PathBuf),
    /// To a device or a pipe, one after the other.
    Stream(PathBuf),
}

/// The place for the bytes of `path`. A link means its target.
fn place(path: &Path) -> Result<Place, String> {
    if path.is_dir() || path.file_name().is_none() || path.as_os_str().to_string_lossy().ends_with('/') {
        return Err("expected a file, found a directory".into());
    }
    if let Some(target) = dangling(path) {
        return Err(target);
    }
    let kind = match fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Place::File(path.into())),
        Err(e) => return Err(message(e)),
    };
    match () {
        // A file that the shell has opened is a stream too, because its readers continue to read.
        () if is_open_file(path) => Ok(Place::Stream(path.into())),
        () if kind.is_file() => fs::canonicalize(path).map(Place::File).map_err(message),
        () if is_stream(kind) => Ok(Place::Stream(path.into())),
        () => Err("expected a file, a character device or a named pipe, found something else".into()),
    }
}

/// Describes a link whose target does not exist.
fn dangling(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    let is_there = fs::metadata(path).is_ok();
    (!is_there).then(|| format!("a link to {}, which is not there", target.display()))
}

/// Whether a path names a file that this process has open already, such as `/dev/stdout`.
fn is_open_file(path: &Path) -> bool {
    let streams = ["/dev/stdout", "/dev/stderr"].iter().any(|name| path == Path::new(name));
    streams || ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.parent() == Some(Path::new(folder)))
}

#[cfg(unix)]
fn is_stream(kind: fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_char_device() || kind.is_fifo()
}

#[cfg(not(unix))]
fn is_stream(_kind: fs::FileType) -> bool {
    false
}

/// Checks, before any work is done, that a file can be written at `path`, and that it is not one of `inputs`, each of which has
/// a name for messages.
///
/// # Errors
/// The directory of the file does not exist or cannot be written to, or `path` is a directory, a link to nothing, one of
/// `inputs`, or inside of one.
pub fn check_file(path: &Path, inputs: &[(&str, &Path)]) -> Result<(), Failure> {
    let bad = |what: &str| Failure::BadInput(format!("-o {}: {what}", path.display()));
    let failed = |e: io::Error| bad(&format!("cannot write here: {}", message(e)));
    match place(path).map_err(|what| bad(&what))? {
        Place::File(file) => {
            if let Some((name, _)) = inputs.iter().find(|(_, input)| has(input, &file)) {
                return Err(bad(&format!("expected a file of its own, found one that is read ({name})")));
            }
            tempfile::tempfile_in(parent(&file)).map(drop).map_err(failed)
        }
        // Opening a pipe would wait for its reader.
        Place::Stream(stream) if fs::metadata(&stream).is_ok_and(|found| is_pipe(found.file_type())) => {
            Ok(())
        }
        Place::Stream(stream) => File::options().append(true).open(stream).map(drop).map_err(failed),
    }
}

#[cfg(unix)]
fn is_pipe(kind: fs::FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&kind)
}

#[cfg(not(unix))]
fn is_pipe(_kind: fs::FileType) -> bool {
    false
}

/// Whether `file` exists, and is `input` or inside of it.
fn has(input: &Path, file: &Path) -> bool {
    match [input, file].map(fs::canonicalize) {
        [Ok(input), Ok(file)] => file.starts_with(input),
        _ => false,
    }
}

/// Writes the file that the user has named with `-o`. The file appears complete or not at all, even if the power fails, and
/// replaces an earlier one. If the path is a link, its target is written. A device or a pipe is written to directly.
///
/// # Errors
/// The directory or the file cannot be written.
pub fn write_output(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let failed = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
    let written = match place(path).map_err(failed)? {
        Place::File(file) => files::write_file(&file, write),
        Place::Stream(stream) => {
            let opened = File::options().append(true).open(stream);
            opened.and_then(|file| files::write_buffered(&file, write))
        }
    };
    written.map_err(|e| failed(message(e)))
}

/// Writes the file at `path`. The file appears complete or not at all, even if the power fails, and replaces an earlier file or
/// link. A link is not followed, because a run's folder may come from somebody else.
///
/// # Errors
/// The directory or the file cannot be written.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    files::write_file(path, write).map_err(|e| Failure::io(path, &e))
}

/// Prints the path of a written file, unless the file is stdout.
///
/// # Errors
/// As [`print`].
pub fn print_path(path: &Path) -> Result<(), Failure> {
    let is_stdout = match place(path) {
        Ok(Place::Stream(stream)) => is_stdout(&stream),
        _ => false,
    };
    if is_stdout { Ok(()) } else { print(&format!("{}\n", path.display())) }
}

#[cfg(unix)]
fn is_stdout(stream: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    identity(stream).is_some() && identity(stream) == identity(Path::new("/dev/stdout"))
}

#[cfg(not(unix))]
fn is_stdout(_stream: &Path) -> bool {
    false
}

/// Writes `bytes` to the file at `path`, as [`write_file`] does.
///
/// # Errors
/// As [`write_file`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_file(path, |file| file.write_all(bytes))
}

/// Makes a folder named `name` in `parent`, or the first of `name-2`, `name-3` … that does not exist.
///
/// # Errors
/// The folder cannot be made.
pub fn new_folder(parent: &Path, name: &str) -> Result<PathBuf, Failure> {
    files::new_folder(parent, name).map_err(|e| Failure::io(&parent.join(name), &e))
}

/// The text of the system's error, without the path that `tempfile` appends.
fn message(e: io::Error) -> String {
    files::without_path(e).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(out: &OutputDir, text: &str) -> PathBuf {
        out.write("png", 0, |f| f.write_all(text.as_bytes())).expect("written")
    }

    /// Protects output names: numbers increase, no file is overwritten, and the directory is made only when
    /// something is written.
    #[test]
    fn names_count_on() {
        let here = tempfile::tempdir().expect("a directory");
        let path = here.path().join("a/b");
        let out = OutputDir::check(&path).expect("can be made");
        assert!(!here.path().join("a").exists());
        assert_eq!(save(&out, "one"), path.join("out-0.png"));
        fs::write(path.join("out-7.png"), "theirs").expect("written");
        fs::write(path.join("out-9.webp"), "theirs").expect("written");
        assert_eq!(save(&out, "two"), path.join("out-8.png"));
        assert_eq!(fs::read_to_string(path.join("out-0.png")).expect("there"), "one");
        assert_eq!(fs::read_dir(&path).expect("there").count(), 4);
        let skipped = out.write("png", 2, |f| f.write_all(b"three")).expect("written");
        assert_eq!(skipped, path.join("out-11.png"), "two numbers stay free");
    }

    /// Protects failed writes: they leave no file, not even a temporary one.
    #[test]
    fn a_failed_write_leaves_nothing() {
        let here = tempfile::tempdir().expect("a directory");
        let out = OutputDir::check(here.path()).expect("writable");
        assert!(out.write("png", 0, |_| Err(ErrorKind::StorageFull.into())).is_err());
        assert_eq!(fs::read_dir(here.path()).expect("there").count(), 0);
    }

    /// Protects early checks: a file in place of a directory is reported before any work.
    #[test]
    fn a_file_is_no_directory() {
        let here = tempfile::tempdir().expect("a directory");
        let file = here.path().join("file");
        fs::write(&file, "").expect("written");
        for path in [file.clone(), file.join("below")] {
            let line = OutputDir::check(&path).expect_err("refused").line();
            assert_eq!(line, format!("error: -o {}: not a directory", path.display()));
        }
    }

    /// Protects permissions: a file that others may read does not stay private because it was temporary.
    #[cfg(unix)]
    #[test]
    fn files_have_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let here = tempfile::tempdir().expect("a directory");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode();
        let plain = here.path().join("plain");
        fs::write(&plain, "").expect("written");
        let out = OutputDir::check(here.path()).expect("writable");
        assert_eq!(mode(&save(&out, "")), mode(&plain));
    }
}
