//! Memory by component, and a refusal where a run cannot fit.

use indicatif::DecimalBytes;
use tg_llava_train::start::{ComponentStates, MemoryForecast, available_memory};

use super::Plan;
use crate::console::Console;
use crate::device::DeviceSpec;
use crate::failure::Failure;
use crate::progress::short_bytes;

/// The lines of a forecast: exact states by component, then estimates.
pub(super) fn describe(memory: &MemoryForecast) -> String {
    let mut text = row("", ["weights", "f32 masters", "gradients", "moments", "together"].map(str::to_owned));
    for ComponentStates { component, weights, master_weights, gradients, moments } in &memory.states {
        let all = weights + master_weights + gradients + moments;
        text += &row(component.title(), [*weights, *master_weights, *gradients, *moments, all].map(bytes));
    }
    let activations = memory.activations;
    text += &line("weights, gradients and optimizer", memory.state_bytes());
    text += &line("kept for the backward pass, about", activations.kept);
    text += &line("a block at work, about", activations.block);
    text + &line("logits and the head's gradient, while no block is at work, about", activations.logits)
}

/// One line of a forecast.
pub(super) fn line(name: &str, value: u64) -> String {
    format!("        {name:<65}{:>12}\n", bytes(value))
}

fn row(title: &str, columns: [String; 5]) -> String {
    let columns: String = columns.iter().map(|column| format!("{column:>12}")).collect();
    format!("        {title:<17}{columns}\n")
}

/// Bytes with a decimal unit, as cards are sold: `28.30 GB`.
pub(super) fn bytes(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// Refuses a run whose first step would not fit into memory, of which `ranks` share this machine's.
///
/// # Errors
/// [`Failure::Input`] with the forecast and what would be less.
pub(in super::super) fn check(plan: &Plan<'_>, ranks: usize, console: &Console) -> Result<(), Failure> {
    let Plan { config, setup, opened, .. } = *plan;
    let llm = &setup.model.llm;
    let bytes = if config.decoder_learns_whole() { 4 } else { opened.dtype.size() };
    let embedding = (llm.vocab_size * llm.hidden_size * bytes) as u64;
    fits_a_buffer(embedding, opened.largest_buffer(), opened.spec)?;
    let on_cpu = opened.spec.backend.is_cpu();
    let Some(free) = available_memory().filter(|_| on_cpu) else { return Ok(()) };
    let table = super::table(config, &setup.model)?;
    let forecast = MemoryForecast::new(&plan.workload(&table, setup.model.max_length));
    let needed = forecast.total().saturating_mul(ranks as u64);
    let text = format!(
        "the run needs about {} of memory at its full length of {} tokens, {} are free",
        short_bytes(needed),
        setup.model.max_length,
        short_bytes(free)
    );
    // The longest rows may be shorter than the limit, so a narrow miss is worth a try.
    if needed > free.saturating_mul(2) {
        return Err(Failure::input(format_args!(
            "{text}; lower run.batch_size (and raise run.accumulation), set run.gradient_checkpointing = true, or lower \
             model.max_length; --dry-run lists what takes how much"
        )));
    }
    if needed > free {
        console.warn(format_args!("{text}; --dry-run lists what takes how much"));
    }
    Ok(())
}

/// Chat and evaluation hold a large embedding in pieces; training does not.
fn fits_a_buffer(embedding: u64, largest: Option<u64>, spec: DeviceSpec) -> Result<(), Failure> {
    match largest {
        Some(largest) if largest < embedding => Err(Failure::input(format_args!(
            "the decoder's embedding takes {} in one buffer, {spec} binds at most {}; chat and eval cut it in pieces, \
             training does not: use --device cuda or --device flex",
            short_bytes(embedding),
            short_bytes(largest)
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Backend;

    #[test]
    fn an_embedding_above_the_largest_buffer_is_refused() {
        let spec = DeviceSpec { backend: Backend::Wgpu, index: 0 };
        assert!(fits_a_buffer(1 << 30, None, spec).is_ok());
        assert!(fits_a_buffer(1 << 27, Some(1 << 27), spec).is_ok());
        let error = fits_a_buffer(1 << 28, Some(1 << 27), spec).unwrap_err();
        let text = format!("{:?}", error);
        assert!(text.contains("wgpu binds at most") && text.contains("--device cuda"), "{text}");
    }
}
