//! Every recorded pass, tensor by tensor.

use anyhow::Context;
use tg_llava_core::config::PaddingSide;
use tg_llava_core::llm::{TokenBatch, splice};
use tg_llava_core::model::TgLlava;
use tg_llava_core::multimodal::{SplicePlan, SpliceSettings};
use tg_llava_core::nn::{LossTargets, cross_entropy};

use super::inputs::Inputs;
use super::internals::{self, Trace};
use super::{Case, to_host};
use crate::parity::golden::{Array, Group};
use crate::parity::report::Row;

/// `suggested` tolerances of the fixtures, in units of a tensor's largest value and of the loss.
const FORWARD: f64 = 1e-4;
const LOSS: f64 = 1e-4;

/// Tensors that are read as inputs.
const INPUTS: [&str; 5] = ["images", "text_guide_ids", "input_ids", "labels", "attention_mask"];

/// Compares all scenarios; a golden tensor that no comparison reads is a failure.
pub(super) fn run(case: &Case<'_>, model: &TgLlava) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in case.meta.scenarios.keys() {
        rows.extend(scenario(case, model, name).with_context(|| format!("scenario {name}"))?);
    }
    let unseen = case.golden.unseen();
    if !unseen.is_empty() {
        let reason = format!("no comparison for {}", unseen.join(", "));
        rows.push(Row::exact("forward: all tensors compared", unseen.len(), Some(reason)));
    }
    Ok(rows)
}

fn scenario(case: &Case<'_>, model: &TgLlava, name: &str) -> anyhow::Result<Vec<Row>> {
    let inputs = Inputs::read(case, name)?;
    let (images, guides) = inputs.image_batch(case.device);
    let pad = case.meta.clip.pad;

    let mut trace = Trace::new();
    internals::vision(model, &images, &mut trace)?;
    let (text, guide_input) = internals::text(model, &inputs.guides, pad, &mut trace)?;
    internals::guide(model, &images, &text, &mut trace)?;
    internals::detail(model, &images, &text, &guide_input, &mut trace)?;
    let image_tokens = model.image_tokens(&model.vision_features(&images)?, &guides)?;
    trace.insert("image_features".into(), to_host(image_tokens.clone())?);

    let mut bridges = Group::new(format!("{name}: towers and bridges"), case.tolerance(FORWARD));
    if let Some(golden) = case.golden.float(&format!("{name}.image_patches")) {
        let [batch, four, channels, height, width] =
            images.crops.as_ref().context("the case has no crops")?.dims();
        let shape = vec![batch, four, channels, height, width];
        let values = inputs.images.iter().flat_map(|image| image.crops.iter().copied()).collect();
        bridges.floats("image_patches", &Array { shape, values }, golden);
    }
    compare_trace(case, name, &trace, &mut bridges, |_| None);
    let mut rows = Vec::new();
    rows.extend(bridges.row());
    if !inputs.rows.is_empty() {
        rows.extend(decoder(case, model, name, &inputs, image_tokens)?);
    }
    Ok(rows)
}

fn decoder(
    case: &Case<'_>,
    model: &TgLlava,
    name: &str,
    inputs: &Inputs,
    image_tokens: burn::tensor::Tensor<3>,
) -> anyhow::Result<Vec<Row>> {
    let config = model.config();
    let settings = SpliceSettings {
        image_tokens: image_tokens.dims()[1],
        max_length: config.max_length,
        padding_side: if name == "leftpad" { PaddingSide::Left } else { config.padding_side },
        vocab_size: config.llm.vocab_size,
    };
    let plan = SplicePlan::new(&inputs.rows, settings)?;
    let mut splicing = Group::new(format!("{name}: splice plan"), 0.0);
    let shape = vec![plan.batch(), plan.len()];
    let flat = |values: Vec<i64>| Array { shape: shape.clone(), values };
    let planned = [
        ("new_labels", flat(plan.labels.iter().flatten().copied().collect())),
        ("new_attention_mask", flat(plan.mask.iter().flatten().map(|&real| i64::from(real)).collect())),
        ("position_ids_built", flat(plan.positions.iter().flatten().map(|&p| p as i64).collect())),
    ];
    for (tensor, ours) in &planned {
        if let Some(golden) = case.golden.int(&format!("{name}.{tensor}")) {
            splicing.ints(tensor, ours, golden);
        }
    }
    let targets = LossTargets::new(&plan.labels, config.llm.vocab_size)?;
    if let Some(golden) = case.golden.int(&format!("{name}.num_loss_tokens")) {
        splicing.equal("num_loss_tokens", &(targets.tokens.len() as i64), &golden.values[0]);
    }

    let mut trace = Trace::new();
    let inputs_embeds = splice(&plan, &model.llm, Some(image_tokens));
    trace.insert("inputs_embeds".into(), to_host(inputs_embeds.clone())?);
    let tokens = TokenBatch { positions: plan.positions.clone(), mask: plan.mask.clone() };
    let hidden = internals::decoder(model, inputs_embeds, &tokens, &mut trace)?;
    add_logits(model, hidden.clone(), &mut trace)?;
    let mut passes = Group::new(format!("{name}: decoder"), case.tolerance(FORWARD));
    // Hidden states at padding are nobody's: the reference's differ with the side of the padding.
    compare_trace(case, name, &trace, &mut passes, |shape| padding_filter(shape, &plan));

    let mut loss_group = Group::new(format!("{name}: loss"), case.tolerance(LOSS));
    if let Some(golden) = case.golden.float(&format!("{name}.loss")) {
        let loss = to_host(cross_entropy(model.llm.logits(targets.select(hidden)), &targets))?;
        loss_group.scalar("loss", f64::from(loss.values[0]), f64::from(golden.values[0]));
    }
    Ok([splicing, passes, loss_group].into_iter().filter_map(Group::row).collect())
}

/// Scores at every position, at the last one, and at the last sixteen of the first row.
fn add_logits(model: &TgLlava, hidden: burn::tensor::Tensor<3>, trace: &mut Trace) -> anyhow::Result<()> {
    let [batch, len, width] = hidden.dims();
    let logits = model.llm.logits(hidden.reshape([batch * len, width]));
    let vocab = logits.dims()[1];
    let logits = logits.reshape([batch, len, vocab]);
    let last = logits.clone().narrow(1, len - 1, 1).reshape([batch, vocab]);
    trace.insert("logits_last".into(), to_host(last)?);
    let tail = len.min(16);
    let row0 = logits.clone().narrow(0, 0, 1).narrow(1, len - tail, tail).reshape([tail, vocab]);
    trace.insert("logits_row0_last16".into(), to_host(row0)?);
    trace.insert("logits".into(), to_host(logits)?);
    Ok(())
}

type Filter = Box<dyn Fn(usize) -> bool>;

/// Keeps the real positions of a `[batch, len, width]` tensor.
fn padding_filter(shape: &[usize], plan: &SplicePlan) -> Option<Filter> {
    let [batch, len, width] = shape else { return None };
    if (*batch, *len) != (plan.batch(), plan.len()) {
        return None;
    }
    let (width, mask): (usize, Vec<bool>) = (*width, plan.mask.iter().flatten().copied().collect());
    Some(Box::new(move |index| mask[index / width]))
}

fn compare_trace(
    case: &Case<'_>,
    scenario: &str,
    trace: &Trace,
    group: &mut Group,
    filter: impl Fn(&[usize]) -> Option<Filter>,
) {
    for input in INPUTS {
        case.golden.skip(&format!("{scenario}.{input}"));
    }
    for (name, ours) in trace {
        let Some(golden) = case.golden.float(&format!("{scenario}.{name}")) else { continue };
        match filter(&golden.shape) {
            // The last column of a right-padded row is padding; the recorded value is the reference's own.
            Some(counts) => group.masked(name, ours, golden, counts),
            None => group.floats(name, ours, golden),
        }
    }
}
