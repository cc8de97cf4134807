//! Every recorded pass, tensor by tensor.

use anyhow::Context;
use burn::tensor::Tensor;
use tg_llava_core::config::PaddingSide;
use tg_llava_core::model::{ModelBatch, TgLlava};
use tg_llava_core::multimodal::SplicePlan;
use tg_llava_core::nn::{LossTargets, cross_entropy};

use super::inputs::Inputs;
use super::trace::{Traced, trace};
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
    let batch = inputs.whole_batch(case.meta.clip.pad, case.device);
    let plan = match inputs.rows.is_empty() {
        true => None,
        false => Some(plan(model, name, &batch)?),
    };
    let (traced, hidden) = trace(model, &batch, plan.as_ref())?;

    let mut bridges = Group::new(format!("{name}: towers and bridges"), case.tolerance(FORWARD));
    if let Some(golden) = case.golden.float(&format!("{name}.image_patches")) {
        let crops = batch.images.as_ref().and_then(|images| images.crops.as_ref());
        let shape = crops.context("the case has no crops")?.dims().to_vec();
        let values = inputs.images.iter().flat_map(|image| image.crops.iter().copied()).collect();
        bridges.floats("image_patches", &Array { shape, values }, golden);
    }
    let of_decoder = |name: &str| name == "inputs_embeds" || name.starts_with("llm_");
    let (passes, towers): (Traced, Traced) = traced.into_iter().partition(|(name, _)| of_decoder(name));
    compare_trace(case, name, &towers, &mut bridges, |_| None);
    let mut rows: Vec<Row> = bridges.row().into_iter().collect();
    if let (Some(plan), Some(hidden)) = (plan, hidden) {
        rows.extend(decoder(case, model, name, &plan, passes, hidden)?);
    }
    Ok(rows)
}

/// The plan of a scenario; one of them is recorded with padding on the other side.
fn plan(model: &TgLlava, name: &str, batch: &ModelBatch) -> anyhow::Result<SplicePlan> {
    let mut model = model.clone();
    model.configure(|config| {
        if name == "leftpad" {
            config.padding_side = PaddingSide::Left;
        }
    })?;
    Ok(model.plan(batch)?)
}

fn decoder(
    case: &Case<'_>,
    model: &TgLlava,
    name: &str,
    plan: &SplicePlan,
    mut traced: Traced,
    hidden: Tensor<3>,
) -> anyhow::Result<Vec<Row>> {
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
    let targets = LossTargets::new(&plan.labels, model.config().llm.vocab_size)?;
    if let Some(golden) = case.golden.int(&format!("{name}.num_loss_tokens")) {
        splicing.equal("num_loss_tokens", &(targets.tokens.len() as i64), &golden.values[0]);
    }

    add_logits(model, hidden.clone(), &mut traced)?;
    let mut passes = Group::new(format!("{name}: decoder"), case.tolerance(FORWARD));
    // Hidden states at padding are nobody's: the reference's differ with the side of the padding.
    compare_trace(case, name, &traced, &mut passes, |shape| padding_filter(shape, plan));

    let mut loss_group = Group::new(format!("{name}: loss"), case.tolerance(LOSS));
    if let Some(golden) = case.golden.float(&format!("{name}.loss")) {
        let loss = to_host(cross_entropy(model.llm.logits(targets.select(hidden)), &targets))?;
        loss_group.scalar("loss", f64::from(loss.values[0]), f64::from(golden.values[0]));
    }
    Ok([splicing, passes, loss_group].into_iter().filter_map(Group::row).collect())
}

/// Scores at every position, at the last one, and at the last sixteen of the first row.
fn add_logits(model: &TgLlava, hidden: Tensor<3>, trace: &mut Traced) -> anyhow::Result<()> {
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
    trace: &Traced,
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
