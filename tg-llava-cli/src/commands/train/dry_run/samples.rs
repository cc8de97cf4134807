//! All samples read once, and a look at what is learned of the first ones.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde::Serialize;
use tg_llava_core::multimodal::IMAGE_TOKEN_INDEX;
use tg_llava_core::nn::IGNORE_INDEX;
use tg_llava_train::data::Example;
use tg_llava_train::start::{Plan, TrainingData};

use crate::console::Console;
use crate::progress::Progress;

/// Samples whose labels are shown.
const PREVIEWS: usize = 2;

/// Decoder tokens of the samples.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Lengths {
    pub samples: usize,
    pub with_pictures: usize,
    pub no_target: usize,
    pub cut: usize,
    pub shortest: usize,
    pub median: usize,
    pub p95: usize,
    pub longest: usize,
    pub tokens: u64,
    pub supervised: u64,
}

/// What reading all samples found.
pub(super) struct Checked {
    pub lengths: Lengths,
    pub problems: Vec<String>,
}

#[derive(Default)]
struct Found {
    lengths: Vec<usize>,
    totals: Lengths,
    problems: Vec<(usize, String)>,
}

/// Reads, decodes and encodes every sample, on all cores.
pub(super) fn check(plan: &Plan, data: &TrainingData, console: &Console) -> Checked {
    let indices = data.indices();
    let total = indices.len() as u64;
    let bar = Progress::bar(console, "checking", || Some(total));
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Found::default()));
    let work = || {
        let mut own = Found::default();
        while let Some(&index) = indices.get(next.fetch_add(1, SeqCst)) {
            let checked = data.loader.example(index);
            let checked =
                checked.and_then(|example| Ok((data.loader.teaches(&example, &data.model)?, example)));
            match checked {
                Ok((teaches, example)) => own.add(&example, teaches, plan),
                Err(error) => own.problems.push((index, error.to_string())),
            }
            bar.advance(1);
        }
        found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).merge(own);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).finish(data)
}

impl Found {
    fn add(&mut self, example: &Example, teaches: bool, plan: &Plan) {
        let per_image = plan.model.multimodal.as_ref().map_or(0, |mm| mm.num_image_tokens());
        let full = example.input_ids.len() + example.pictures.len() * per_image.saturating_sub(1);
        let length = full.min(plan.model.max_length);
        self.lengths.push(length);
        let totals = &mut self.totals;
        totals.with_pictures += usize::from(!example.pictures.is_empty());
        totals.no_target += usize::from(!teaches);
        totals.cut += usize::from(full > length || !example.notes.is_empty());
        totals.tokens += length as u64;
        totals.supervised += example.labels.iter().filter(|&&label| label != IGNORE_INDEX).count() as u64;
    }

    fn merge(&mut self, mut other: Self) {
        self.lengths.append(&mut other.lengths);
        self.problems.append(&mut other.problems);
        let (ours, theirs) = (&mut self.totals, other.totals);
        ours.with_pictures += theirs.with_pictures;
        ours.no_target += theirs.no_target;
        ours.cut += theirs.cut;
        ours.tokens += theirs.tokens;
        ours.supervised += theirs.supervised;
    }

    fn finish(mut self, data: &TrainingData) -> Checked {
        self.lengths.sort_unstable();
        self.problems.sort();
        let at = |share: f64| {
            let place = (share * self.lengths.len().saturating_sub(1) as f64).round() as usize;
            self.lengths.get(place).copied().unwrap_or(0)
        };
        let rejected = data.loader.dataset().rejected().iter().map(ToString::to_string);
        Checked {
            lengths: Lengths {
                samples: self.lengths.len() + self.problems.len(),
                shortest: at(0.0),
                median: at(0.5),
                p95: at(0.95),
                longest: at(1.0),
                ..self.totals
            },
            problems: rejected.chain(self.problems.into_iter().map(|(_, text)| text)).collect(),
        }
    }
}

/// The first samples as the decoder reads them, what is learned of them marked: green on a terminal, in `[[..]]`
/// elsewhere.
pub(super) fn preview(plan: &Plan, data: &TrainingData) -> String {
    let colors = std::io::stdout().is_terminal();
    let mut text = String::new();
    for &index in data.indices().iter().take(PREVIEWS) {
        let Ok(sample) = data.loader.dataset().sample(index) else { continue };
        let Ok(example) = data.loader.encoder().encode_text(&sample, index) else { continue };
        text += &format!(
            "sample  {} (what is learned is {})\n",
            sample.id,
            if colors { "green" } else { "in [[..]]" }
        );
        text += &format!("        {}\n", marked(plan, &example, colors).replace('\n', "\n        "));
    }
    text
}

fn marked(plan: &Plan, example: &Example, colors: bool) -> String {
    let (on, off) = if colors { ("\x1b[32m", "\x1b[0m") } else { ("[[", "]]") };
    let mut text = String::new();
    let mut start = 0;
    while start < example.input_ids.len() {
        let learned = example.labels[start] != IGNORE_INDEX;
        let picture = example.input_ids[start] == IMAGE_TOKEN_INDEX;
        let same = |at: &usize| {
            (example.labels[*at] != IGNORE_INDEX) == learned
                && (example.input_ids[*at] == IMAGE_TOKEN_INDEX) == picture
        };
        let end = (start..example.input_ids.len()).take_while(same).last().unwrap_or(start) + 1;
        let piece = match picture {
            true => "<image>".repeat(end - start),
            false => {
                let ids: Vec<u32> =
                    example.input_ids[start..end].iter().filter_map(|&id| u32::try_from(id).ok()).collect();
                plan.codecs.tokenizer.decode_verbatim(&ids, false).unwrap_or_default()
            }
        };
        match learned {
            true => text += &format!("{on}{piece}{off}"),
            false => text += &piece,
        }
        start = end;
    }
    text
}
