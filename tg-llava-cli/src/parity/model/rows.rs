//! A row of a batch equals the single run, and a text-only row costs nothing and changes nothing.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use tg_llava_core::config::PaddingSide;
use tg_llava_core::generate::{Engine, Event, GenerateOptions, Request, RequestId};
use tg_llava_core::model::TgLlava;

use super::generation::{generate, request};
use super::inputs::Inputs;
use super::{Case, to_host};
use crate::parity::golden::{Array, Group};
use crate::parity::report::Row;

/// Rounding of one row's arithmetic in another batch shape.
const TOLERANCE: f64 = 1e-4;

/// Runs each scenario's batch and each of its rows alone, with guide padding masked, padded right and left.
pub(super) fn run(case: &Case<'_>, model: &TgLlava) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for side in [PaddingSide::Right, PaddingSide::Left] {
        let mut model = model.clone();
        model.configure(|config| config.padding_side = side)?;
        let name = match side {
            PaddingSide::Right => "batch row = single run, padded right",
            PaddingSide::Left => "batch row = single run, padded left",
        };
        let mut group = Group::new(name, case.tolerance(TOLERANCE));
        for (scenario, meta) in &case.meta.scenarios {
            if !meta.llm || scenario == "leftpad" || meta.batch_of_one(case, scenario) {
                continue;
            }
            compare(case, &model, scenario, &mut group)?;
        }
        rows.extend(group.row());
    }
    let mut answers = Group::new("answer in company = answer alone", 0.0);
    for (scenario, meta) in case.meta.scenarios.iter().filter(|(_, meta)| meta.llm) {
        if !meta.batch_of_one(case, scenario) {
            compare_answers(case, model, scenario, &mut answers)?;
        }
    }
    rows.extend(answers.row());
    Ok(rows)
}

impl super::Scenario {
    fn batch_of_one(&self, case: &Case<'_>, scenario: &str) -> bool {
        case.golden.int(&format!("{scenario}.input_ids")).is_none_or(|ids| ids.shape[0] == 1)
    }
}

fn compare(case: &Case<'_>, model: &TgLlava, scenario: &str, group: &mut Group) -> anyhow::Result<()> {
    let inputs = Inputs::read(case, scenario)?;
    let eos = case.meta.clip.eos;
    let all: Vec<usize> = (0..inputs.rows.len()).collect();
    let together = real_logits(model, &inputs, &all, eos, case)?;
    for row in all {
        let alone = real_logits(model, &inputs, &[row], eos, case)?;
        group.floats(&format!("{scenario} row {row}"), &together[row], &alone[0]);
    }
    Ok(())
}

/// Tokens that are generated behind each row.
const NEW_TOKENS: usize = 4;

/// Each row joins while those before it are being answered.
fn compare_answers(
    case: &Case<'_>,
    model: &TgLlava,
    scenario: &str,
    group: &mut Group,
) -> anyhow::Result<()> {
    let inputs = Inputs::read(case, scenario)?;
    let options = GenerateOptions { max_new_tokens: NEW_TOKENS, ..GenerateOptions::default() };
    let request = |row: usize| -> anyhow::Result<Request> {
        request(model, &inputs.batch(&[row], case.meta.clip.eos, case.device), options.clone())
    };
    let mut engine = Engine::new(model, None);
    let mut together: BTreeMap<RequestId, (usize, Vec<i64>)> = BTreeMap::new();
    let mut waiting = 0..inputs.rows.len();
    loop {
        if let Some(row) = waiting.next() {
            together.insert(engine.admit(request(row)?)?, (row, Vec::new()));
        } else if engine.is_empty() {
            break;
        }
        for event in engine.step() {
            match event {
                Event::Token { request, token, .. } => {
                    if let Some((_, answer)) = together.get_mut(&request) {
                        answer.push(token);
                    }
                }
                Event::Finished { .. } => {}
                Event::Failed { error, .. } => return Err(error.into()),
            }
        }
    }
    for (row, answer) in together.into_values() {
        group.equal(&format!("{scenario} row {row}"), &answer, &generate(model, request(row)?)?.0);
    }
    Ok(())
}

/// Scores at the real positions of each row.
fn real_logits(
    model: &TgLlava,
    inputs: &Inputs,
    keep: &[usize],
    eos: i64,
    case: &Case<'_>,
) -> anyhow::Result<Vec<Array<f32>>> {
    let output = model.forward(&inputs.batch(keep, eos, case.device))?;
    let [batch, len, width] = output.hidden_states.dims();
    let logits: Tensor<2> = model.llm.logits(output.hidden_states.reshape([batch * len, width]));
    let logits = to_host(logits)?;
    let vocab = logits.shape[1];
    let row = |index: usize| {
        let mut values = Vec::new();
        for column in (0..len).filter(|&column| output.plan.mask[index][column]) {
            let start = (index * len + column) * vocab;
            values.extend(&logits.values[start..start + vocab]);
        }
        Array { shape: vec![values.len() / vocab, vocab], values }
    };
    Ok((0..batch).map(row).collect())
}
