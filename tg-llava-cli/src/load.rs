//! A checkpoint into memory, with a bar meanwhile.

use std::path::Path;

use tg_llava_core::assistant::{Assistant, AssistantOptions};
use tg_llava_core::config::read_model_config_over;
use tg_llava_core::weights::{base_of, is_unused_key, open_sources};

use crate::console::Console;
use crate::device::Opened;
use crate::failure::Failure;
use crate::progress::{Progress, short_count};
use crate::quantised;

/// Loads the checkpoint in `dir` as `options` say, with the number format and the limits of the device.
///
/// # Errors
/// Where a file is missing or damaged, or weights and configuration do not fit together.
pub fn assistant(
    dir: &Path,
    opened: &Opened,
    options: &AssistantOptions,
    console: &Console,
) -> Result<Assistant, Failure> {
    let options = for_device(options, opened)?;
    let start = std::time::Instant::now();
    let bar = Progress::bar(console, "loading weights", || total_values(dir, options.base.as_deref()));
    let mut values = 0;
    let assistant = Assistant::load(dir, &opened.device, &options, &mut |count| {
        values += count;
        bar.advance(count);
    })?;
    drop(bar);
    let not_finite = &assistant.report.not_finite;
    if !not_finite.is_empty() {
        console.warn(format_args!(
            "{} tensor(s) hold NaN or infinite values, so answers are likely to be nonsense: {}",
            not_finite.len(),
            first_few(not_finite)
        ));
    }
    quantised::tell(&assistant.report.quantised, console);
    quantised::tell_floats(&assistant.report.dequantised, opened.dtype, console);
    console.detail(format_args!(
        "{}: {} parameters loaded in {:.1} s, template {}",
        dir.display(),
        short_count(values as u64),
        start.elapsed().as_secs_f64(),
        assistant.template.name
    ));
    Ok(assistant)
}

/// The adapter in `dir` over what was loaded from the folder beside it.
///
/// # Errors
/// Where a file is missing or damaged, or the adapter does not fit.
pub fn adapter(
    dir: &Path,
    (base, folder): (&Assistant, &Path),
    opened: &Opened,
    options: &AssistantOptions,
) -> Result<Assistant, Failure> {
    Ok(base.with_adapter(dir, (folder, &for_device(options, opened)?), &mut |_| {})?)
}

fn for_device(options: &AssistantOptions, opened: &Opened) -> Result<AssistantOptions, Failure> {
    Ok(AssistantOptions {
        dtype: opened.dtype,
        largest_buffer: opened.largest_buffer(),
        quantization: quantised::on_device(options.quantization, opened)?,
        ..options.clone()
    })
}

/// How many values a checkpoint's tensors hold; `None` where that cannot be said, which loading will explain.
fn total_values(dir: &Path, base: Option<&Path>) -> Option<u64> {
    let base = base_of(dir, base).ok()?;
    let config = read_model_config_over(dir, base.as_deref()).ok()?;
    let source = open_sources(dir, &config, base.as_deref()).ok()?;
    let used = source.iter().filter(|(key, _)| !is_unused_key(key));
    Some(used.map(|(_, tensor)| tensor.num_elements() as u64).sum())
}

/// How many names are printed before the rest is counted.
const SHOWN: usize = 8;

/// The first names, and how many there are more.
pub(crate) fn first_few(names: &[String]) -> String {
    let mut out = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        out += &format!(" and {} more", names.len() - SHOWN);
    }
    out
}
