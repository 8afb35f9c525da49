//! Previews of the pictures that are being made, as files beside the pictures.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use calotype_sdxl::pipeline::Preview;

use crate::failure::Failure;
use crate::output::{self, OutputDir};
use crate::picture;

/// The previews of a request. Their files are removed when this is dropped. A file that somebody else has written is never touched.
pub struct Previews<'a> {
    output: &'a OutputDir,
    /// A preview is written after so many steps of a picture.
    every: usize,
    /// The file of each picture that has a preview.
    files: Vec<(usize, Written)>,
}

/// A file of previews.
struct Written {
    path: PathBuf,
    /// The file as this program has written it last.
    state: Option<State>,
}

/// What tells a file from another one in its place: its length and its time.
type State = (u64, SystemTime);

impl Written {
    fn of(path: PathBuf) -> Written {
        Written { state: state(&path), path }
    }

    /// Whether the file is there, and nobody else has changed it.
    fn is_own(&self) -> bool {
        self.state.is_some() && self.state == state(&self.path)
    }
}

fn state(path: &Path) -> Option<State> {
    let found = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((found.len(), found.modified().ok()?))
}

impl<'a> Previews<'a> {
    /// Previews after every `every` steps of a picture. 0: none.
    pub fn new(output: &'a OutputDir, every: usize) -> Previews<'a> {
        Previews { output, every, files: Vec::new() }
    }

    /// Writes the preview of a picture in place of the picture's last one, if the step is one with a preview.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn step(&mut self, preview: &Preview) -> Result<(), Failure> {
        if preview.step.checked_rem(self.every) != Some(0) {
            return Ok(());
        }
        let image = preview.decode();
        let size = (image.width() as usize, image.height() as usize);
        let write = |file: &mut dyn Write| picture::write_png(file, size, image.as_raw(), &[]);
        // Numbers are looked up once, so that a preview keeps its name.
        let file = self.files.iter_mut().find(|(picture, _)| *picture == preview.picture);
        match file.filter(|(_, file)| file.is_own()) {
            Some((_, file)) => {
                output::write_file(&file.path, write)?;
                *file = Written::of(std::mem::take(&mut file.path));
            }
            None => {
                let path = self.output.write_preview(preview.picture, write)?;
                self.files.retain(|(picture, _)| *picture != preview.picture);
                self.files.push((preview.picture, Written::of(path)));
            }
        }
        Ok(())
    }
}

impl Drop for Previews<'_> {
    fn drop(&mut self) {
        for (_, file) in self.files.iter().filter(|(_, file)| file.is_own()) {
            let _ = fs::remove_file(&file.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::path::Path;

    use calotype_sdxl::PredictPlan;
    use calotype_sdxl::pipeline::{EmptyNegative, Options, Pipeline, Rng};
    use calotype_tensor::DType;

    use super::*;

    /// Protects previews' files: each picture has one, named for the number that the picture will get, of its size, after every second
    /// step; none is left at the end. A file of such a name that was there is neither written nor removed.
    #[test]
    fn files_are_named_after_pictures() {
        let here = tempfile::tempdir().expect("a directory");
        let folder = here.path().join("pictures");
        fs::create_dir(&folder).expect("made");
        for theirs in ["out-4.png", "out-6.preview.png"] {
            fs::write(folder.join(theirs), "theirs").expect("written");
        }
        let names = || {
            let entries =
                fs::read_dir(&folder).expect("there").map(|entry| entry.expect("there").file_name());
            let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        let output = OutputDir::check(&folder).expect("writable");
        let mut previews = Previews::new(&output, 2);
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden/pipeline");
        let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
        let pipeline = Pipeline::open(&model, options).expect("a model");
        let plan = PredictPlan {
            width: 24,
            height: 16,
            steps: 3,
            num_outputs: 2,
            seed: 1,
            ..PredictPlan::default()
        };
        let mut seen = Vec::new();
        let made = pipeline.predict(&plan, &mut |step| {
            if let Some(preview) = &step.preview {
                previews.step(preview).expect("written");
                seen.push(names().len());
            }
            ControlFlow::Continue(())
        });
        made.expect("pictures");
        assert_eq!(seen, [2, 3, 3, 3, 4, 4]);
        let own = ["out-5.preview.png", "out-6.preview-2.png"];
        assert_eq!(names(), ["out-4.png", own[0], own[1], "out-6.preview.png"]);
        let file = fs::File::open(folder.join(own[1])).expect("there");
        let reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().expect("a PNG");
        assert_eq!(reader.info().size(), (24, 16));
        fs::write(folder.join(own[0]), "theirs too").expect("written");
        drop(previews);
        assert_eq!(names(), ["out-4.png", own[0], "out-6.preview.png"]);
        assert_eq!(fs::read(folder.join("out-6.preview.png")).expect("there"), b"theirs");
    }
}
