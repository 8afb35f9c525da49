//! Previews of the pictures that are being made, as files beside the pictures.

use std::fs;
use std::path::PathBuf;

use calotype_sdxl::pipeline::Preview;

use crate::failure::Failure;
use crate::output::{self, OutputDir};
use crate::picture;

/// The previews of a request. Their files are removed when this is dropped.
pub struct Previews<'a> {
    output: &'a OutputDir,
    /// A preview is written after so many steps of a picture.
    every: usize,
    /// The file of each picture that has a preview.
    files: Vec<(usize, PathBuf)>,
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
        let path = self.path(preview.picture)?;
        let image = preview.decode();
        let size = (image.width() as usize, image.height() as usize);
        output::write_file(&path, |file| picture::write_png(file, size, image.as_raw(), &[]))
    }

    /// The file of a picture's previews. Numbers are looked up once, so that a preview keeps its name.
    fn path(&mut self, picture: usize) -> Result<PathBuf, Failure> {
        if let Some((_, path)) = self.files.iter().find(|(of, _)| *of == picture) {
            return Ok(path.clone());
        }
        let path = self.output.preview(picture)?;
        self.files.push((picture, path.clone()));
        Ok(path)
    }
}

impl Drop for Previews<'_> {
    fn drop(&mut self) {
        for (_, path) in &self.files {
            let _ = fs::remove_file(path);
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
    /// step; none is left at the end.
    #[test]
    fn files_are_named_after_pictures() {
        let here = tempfile::tempdir().expect("a directory");
        let folder = here.path().join("pictures");
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("out-4.png"), "theirs").expect("written");
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
        assert_eq!(seen, [1, 2, 2, 2, 3, 3]);
        assert_eq!(names(), ["out-4.png", "out-5.preview.png", "out-6.preview.png"]);
        let file = fs::File::open(folder.join("out-6.preview.png")).expect("there");
        let reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().expect("a PNG");
        assert_eq!(reader.info().size(), (24, 16));
        drop(previews);
        assert_eq!(names(), ["out-4.png"]);
    }
}
