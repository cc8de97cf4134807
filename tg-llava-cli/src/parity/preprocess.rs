//! Pictures: decoding, resizing, normalising and detail crops against a `preprocess` folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use tg_llava_core::preprocess::{
    AspectRatio, DecodeOptions, DetailSource, ImageProcessor, Pixels, RgbImage, decode_file, upsample_2x,
};

use super::report::Row;

/// Normalised values: one rounding of f32 over their scale, and no grey level (0.015) less.
const PIXEL_TOLERANCE: f64 = 1e-6;
/// Grey levels by which JPEG decoders may differ: the format leaves their rounding open.
const JPEG_TOLERANCE: f64 = 1.0;
/// Step of the tensors that hold every eighth row and column.
const STRIDE: usize = 8;

/// Compares everything that the folder `dir` holds.
///
/// # Errors
/// Where the folder's own files cannot be read or contradict its layout.
pub fn run(dir: &Path) -> Result<Vec<Row>> {
    let meta = dir.join("meta.json");
    let meta: Meta =
        serde_json::from_str(&fs::read_to_string(&meta).with_context(|| meta.display().to_string())?)
            .with_context(|| meta.display().to_string())?;
    let golden = dir.join("golden.safetensors");
    let bytes = fs::read(&golden).with_context(|| golden.display().to_string())?;
    let tensors = SafeTensors::deserialize(&bytes).with_context(|| golden.display().to_string())?;
    let mut folder = Folder { dir, meta: &meta, tensors: &tensors, used: BTreeSet::new() };

    let mut rows = Vec::new();
    for image in meta.images.values() {
        rows.extend(folder.decoding(image)?);
        for (mode, sizes) in &image.modes {
            rows.extend(folder.mode(image, mode, sizes)?);
        }
    }
    rows.extend(folder.enlarging()?);
    rows.push(folder.nothing_left_over());
    Ok(rows)
}

#[derive(Deserialize)]
struct Meta {
    processor: Normalization,
    images: BTreeMap<String, Image>,
}

#[derive(Deserialize)]
struct Normalization {
    mean: [f64; 3],
    std: [f64; 3],
}

#[derive(Deserialize)]
struct Image {
    file: String,
    size_wh: [u32; 2],
    decoded_png: Option<String>,
    /// By aspect mode, then by size.
    modes: BTreeMap<String, BTreeMap<usize, Outcome>>,
}

/// What the reference made of a picture.
#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Failed {
        error: String,
    },
    Done {
        mean: f64,
        std: f64,
        #[serde(default)]
        reference_misread_axes: bool,
    },
}

impl Outcome {
    /// What was wrong with the reference, if anything.
    fn fault(&self) -> Option<String> {
        match self {
            Self::Failed { error } => Some(format!("fails: {error}")),
            Self::Done { reference_misread_axes: true, .. } => Some("takes the rows for channels".into()),
            Self::Done { .. } => None,
        }
    }
}

impl Image {
    fn stem(&self) -> &str {
        Path::new(&self.file).file_stem().and_then(|stem| stem.to_str()).unwrap_or(&self.file)
    }

    fn is_jpeg(&self) -> bool {
        let extension = Path::new(&self.file).extension().unwrap_or_default();
        ["jpg", "jpeg"].iter().any(|jpeg| extension.eq_ignore_ascii_case(jpeg))
    }
}

struct Folder<'a> {
    dir: &'a Path,
    meta: &'a Meta,
    tensors: &'a SafeTensors<'a>,
    used: BTreeSet<String>,
}

impl Folder<'_> {
    fn decode(&self, file: &str) -> Result<RgbImage> {
        Ok(decode_file(self.dir.join("images").join(file), &DecodeOptions::default())?)
    }

    /// The file as we decode it against what Pillow made of it.
    fn decoding(&mut self, image: &Image) -> Result<Option<Row>> {
        let ours = self.decode(&image.file)?;
        ensure!(
            [ours.width(), ours.height()] == image.size_wh,
            "{}: decoded to {}x{} pixels, meta.json says {:?}",
            image.file,
            ours.width(),
            ours.height(),
            image.size_wh
        );
        let mut worst = Worst::default();
        if let Some(png) = &image.decoded_png {
            worst.compare(ours.as_raw(), self.decode(png)?.as_raw())?;
        }
        if let Some(golden) = self.take_bytes(&format!("{}.rgb", image.stem()))? {
            worst.compare(ours.as_raw(), &golden)?;
        }
        let tolerance = if image.is_jpeg() { JPEG_TOLERANCE } else { 0.0 };
        Ok(worst.row(format!("{} decoded, in grey levels", image.file), tolerance))
    }

    /// One picture in one aspect mode, at every size.
    fn mode(&mut self, image: &Image, mode: &str, sizes: &BTreeMap<usize, Outcome>) -> Result<Vec<Row>> {
        let aspect = match mode {
            "square" => AspectRatio::Square,
            "pad" => AspectRatio::Pad,
            other => bail!("{}: unknown mode \"{other}\" in meta.json", image.file),
        };
        // Resizing is checked on Pillow's own pixels, so that a decoder's rounding does not blur the
        // comparison.
        let picture = self.decode(image.decoded_png.as_ref().unwrap_or(&image.file))?;
        let (mut levels, mut pixels, mut statistics) = (Worst::default(), Worst::default(), Worst::default());
        let (mut faults, mut fault_count) = (BTreeSet::new(), 0);
        for (&size, outcome) in sizes {
            let processor = ImageProcessor::clip(size)
                .with_normalization(self.meta.processor.mean, self.meta.processor.std);
            let name = format!("{}.{mode}.{size}", image.stem());
            let prepared = processor.prepare(&picture, aspect, DetailSource::Upsampled);
            let whole = View { values: &prepared.pixels, side: size };
            let crops = View { values: &prepared.crops, side: size };
            if let Some(fault) = outcome.fault() {
                faults.insert(fault);
                fault_count += prepared.pixels.len();
                for (suffix, view) in [(".channels_last", &whole), (".channels_last.crops", &crops)] {
                    self.compare_view(&format!("{name}{suffix}"), view, &mut pixels)?;
                }
                self.used.extend(
                    ["", ".crops", ".stride8", ".crops.stride8"].map(|suffix| format!("{name}{suffix}")),
                );
                continue;
            }
            for (suffix, view) in [("", &whole), (".crops", &crops)] {
                self.compare_view(&format!("{name}{suffix}"), view, &mut pixels)?;
            }
            if let Outcome::Done { mean, std, .. } = outcome {
                statistics.compare_values(&mean_and_deviation(&prepared.pixels), &[*mean, *std])?;
            }
            let expected = self.dir.join("expected").join(format!("{name}.png"));
            if expected.exists() {
                let expected = decode_file(&expected, &DecodeOptions::default())?;
                levels.compare(processor.fit_picture(&picture, aspect).as_raw(), expected.as_raw())?;
            }
        }
        let group = |what: &str| format!("{} {mode}: {what}", image.file);
        let mut rows: Vec<_> = [
            levels.row(group("resized, in grey levels"), 0.0),
            pixels.row(group("pixels and crops"), PIXEL_TOLERANCE),
            statistics.row(group("mean and deviation"), PIXEL_TOLERANCE),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !faults.is_empty() {
            let faults: Vec<_> = faults.into_iter().collect();
            let note = format!(
                "the reference {}; here the picture is read as height x width x 3",
                faults.join(", ")
            );
            rows.push(Row::by_design(group("axes"), fault_count, note));
        }
        Ok(rows)
    }

    /// Compares `name`, and `name.stride8`, where the folder holds them.
    fn compare_view(&mut self, name: &str, view: &View<'_>, worst: &mut Worst) -> Result<()> {
        if let Some(golden) = self.take_values(name)? {
            worst.compare_values(&view.strided(1), &golden).context(name.to_owned())?;
        }
        if let Some(golden) = self.take_values(&format!("{name}.stride{STRIDE}"))? {
            worst.compare_values(&view.strided(STRIDE), &golden).context(name.to_owned())?;
        }
        Ok(())
    }

    /// The enlargement alone.
    fn enlarging(&mut self) -> Result<Option<Row>> {
        const INPUT: &str = "op.bilinear2x.input";
        let Some(input) = self.take_values(INPUT)? else { return Ok(None) };
        let golden = self.take_values("op.bilinear2x.output")?.context("op.bilinear2x.output is missing")?;
        let shape = self.tensors.tensor(INPUT)?.shape().to_vec();
        let &[.., height, width] = shape.as_slice() else { bail!("{INPUT} has shape {shape:?}") };
        let data = input.iter().map(|&value| value as f32).collect();
        let ours: Vec<f64> =
            upsample_2x(&Pixels { data, height, width }).data.into_iter().map(f64::from).collect();
        let mut worst = Worst::default();
        worst.compare_values(&ours, &golden)?;
        Ok(worst.row("bilinear enlargement".into(), PIXEL_TOLERANCE))
    }

    fn nothing_left_over(&self) -> Row {
        let names = self.tensors.names();
        let unused: Vec<_> = names.iter().filter(|name| !self.used.contains(**name)).copied().collect();
        let difference = (!unused.is_empty()).then(|| format!("not compared: {}", unused.join(", ")));
        Row::exact("every tensor of the folder was compared", names.len(), difference)
    }

    fn take_values(&mut self, name: &str) -> Result<Option<Vec<f64>>> {
        let Ok(tensor) = self.tensors.tensor(name) else { return Ok(None) };
        ensure!(tensor.dtype() == Dtype::F32, "{name}: F32 expected, found {:?}", tensor.dtype());
        self.used.insert(name.to_owned());
        let (values, _) = tensor.data().as_chunks::<4>();
        Ok(Some(values.iter().map(|&bytes| f32::from_le_bytes(bytes).into()).collect()))
    }

    fn take_bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let Ok(tensor) = self.tensors.tensor(name) else { return Ok(None) };
        ensure!(tensor.dtype() == Dtype::U8, "{name}: U8 expected, found {:?}", tensor.dtype());
        self.used.insert(name.to_owned());
        Ok(Some(tensor.data().to_vec()))
    }
}

/// Planes of `side` rows and columns.
struct View<'a> {
    values: &'a [f32],
    side: usize,
}

impl View<'_> {
    /// Every `step`-th row and column of each plane.
    fn strided(&self, step: usize) -> Vec<f64> {
        let rows = |plane: &'_ [f32]| -> Vec<f64> {
            let rows = plane.chunks_exact(self.side).step_by(step);
            rows.flat_map(|row| row.iter().step_by(step).map(|&value| value.into())).collect()
        };
        self.values.chunks_exact(self.side * self.side).flat_map(rows).collect()
    }
}

/// The worst difference of a group so far.
#[derive(Default)]
struct Worst {
    compared: usize,
    difference: f64,
}

impl Worst {
    /// Bytes, in grey levels.
    fn compare(&mut self, ours: &[u8], golden: &[u8]) -> Result<()> {
        ensure!(ours.len() == golden.len(), "{} values here, {} in the folder", ours.len(), golden.len());
        let differences = ours.iter().zip(golden).map(|(ours, golden)| ours.abs_diff(*golden));
        self.add(ours.len(), differences.max().unwrap_or(0).into());
        Ok(())
    }

    /// Numbers, over the scale of the golden ones; a number that is none differs without bound.
    fn compare_values(&mut self, ours: &[f64], golden: &[f64]) -> Result<()> {
        ensure!(ours.len() == golden.len(), "{} values here, {} in the folder", ours.len(), golden.len());
        let scale = golden.iter().fold(f64::MIN_POSITIVE, |scale, value| scale.max(value.abs()));
        for (ours, golden) in ours.iter().zip(golden) {
            let difference = (ours - golden).abs() / scale;
            self.add(1, if difference.is_nan() { f64::INFINITY } else { difference });
        }
        Ok(())
    }

    fn add(&mut self, compared: usize, difference: f64) {
        self.compared += compared;
        self.difference = self.difference.max(difference);
    }

    /// `None` where the folder held nothing to compare.
    fn row(self, group: String, tolerance: f64) -> Option<Row> {
        (self.compared > 0).then(|| Row::numeric(group, self.compared, self.difference, tolerance))
    }
}

/// Mean and sample deviation (over `count - 1`, torch's default).
fn mean_and_deviation(values: &[f32]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let squares = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
    [mean, (squares / (count - 1.0)).sqrt()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::report::Verdict;

    #[test]
    fn the_fixtures_are_met_and_the_reference_s_faults_named() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/preprocess");
        let rows = run(Path::new(folder)).expect("reads");
        let failed: Vec<_> = rows.iter().filter(|row| row.failed()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        let faults = rows.iter().filter(|row| matches!(row.verdict, Verdict::ByDesign(_)));
        let faults: Vec<_> = faults.map(|row| row.group.as_str()).collect();
        assert_eq!(faults, ["strip_h1.png square: axes", "strip_h3.png square: axes"]);
    }

    #[test]
    fn a_difference_is_seen() {
        let mut worst = Worst::default();
        worst.compare(&[1, 2, 3], &[1, 4, 3]).expect("equal lengths");
        assert!(worst.row("levels".into(), 1.0).is_some_and(|row| row.failed() && row.worst == 2.0));
        let mut worst = Worst::default();
        worst.compare_values(&[f64::NAN], &[0.0]).expect("equal lengths");
        assert!(worst.row("values".into(), 1.0).is_some_and(|row| row.failed()));
        assert!(Worst::default().compare(&[1], &[1, 2]).is_err());
    }
}
