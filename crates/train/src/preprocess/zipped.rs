//! A made set as a zip file.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::job::{CAPTION, MASK, PICTURE};
use crate::dataset::{DatasetError, INDEX, Picture};

/// Writes the made set in the folder `set` into the zip file `to`: the index, and of each of the pictures `NAME.png`, `NAME.txt` and, if there is
/// one, `NAME.mask.png`. A training learns the same from both. The same set gives the same bytes.
///
/// # Errors
/// A file of the set cannot be read, or `to` cannot be written.
pub fn write_zip(set: &Path, pictures: &[Picture], to: &Path) -> Result<(), DatasetError> {
    let mut names = vec![INDEX.to_owned()];
    for Picture { name, has_mask, .. } in pictures {
        let mask = has_mask.then_some(MASK);
        names.extend([PICTURE, CAPTION].into_iter().chain(mask).map(|ending| format!("{name}.{ending}")));
    }
    write(set, &names, to).map_err(|source| DatasetError::Io { path: to.into(), source })
}

fn write(set: &Path, names: &[String], to: &Path) -> io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::new(File::create(to)?));
    // PNG files do not get smaller.
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let options = options.last_modified_time(DateTime::DEFAULT);
    for name in names {
        zip.start_file(name, options)?;
        let mut file = File::open(set.join(name))?;
        io::copy(&mut file, &mut zip)?;
    }
    io::Write::flush(&mut zip.finish()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Protects sets that leave the machine: the zip file has the pictures with their captions and masks, and the index, and nothing else; the
    /// same set gives the same bytes.
    #[test]
    fn a_set_as_a_zip_file() {
        let here = tempfile::tempdir().expect("a folder");
        let set = here.path().join("set");
        fs::create_dir_all(set.join("a")).expect("made");
        let files = ["a/b.png", "a/b.txt", "a/b.mask.png", "c.png", "c.txt", INDEX];
        for name in files.into_iter().chain(["dataset.txt", "c.mask.png", "contact_sheet.png"]) {
            fs::write(set.join(name), name).expect("written");
        }
        let picture = |name: &str, has_mask| Picture {
            name: name.into(),
            caption: String::new(),
            size: [1, 1],
            upscaled: false,
            has_mask,
            warnings: Vec::new(),
        };
        let zipped = |to: &str| {
            let to = here.path().join(to);
            write_zip(&set, &[picture("a/b", true), picture("c", false)], &to).expect("written");
            fs::read(to).expect("a zip file")
        };
        let bytes = zipped("one.zip");
        assert!(bytes == zipped("two.zip"));
        let mut zip = zip::ZipArchive::new(io::Cursor::new(bytes)).expect("a zip file");
        let mut names: Vec<String> =
            zip.file_names().map(|name| name.expect("a name").into_owned()).collect();
        for name in &names {
            assert_eq!(&io::read_to_string(zip.by_name(name).expect("there")).expect("text"), name);
        }
        names.sort();
        let mut expected = files.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
}
