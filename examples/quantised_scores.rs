//! How a quantised decoder's scores differ from those of its floats, along recorded answers.
//!
//! ```sh
//! cargo run --release -p tg-llava-examples --example quantised_scores -- DECODER_FOLDER GREEDY_JSON [q8_0|q4_k_m|q4_0] [int8|f32]
//! ```
//!
//! `GREEDY_JSON` holds `cases` with `prompt_ids` and `new_ids`, as `tests/fixtures/smollm2_greedy.json`. Each answer is read
//! token by token, whatever the scores say (teacher forcing), and at each place compared: the most probable token, the
//! divergence of the probabilities, and the margin of the floats' choice where the quantised decoder chose otherwise.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::{Device, Tensor};
use tg_llava_core::llm::Llm;
use tg_llava_core::quant::{Activations, Scheme};
use tg_llava_core::weights::{Encoding, LoadOptions, Quantization, load_model};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, recorded, options @ ..] = &args[..] else {
        bail!("usage: quantised_scores DECODER_FOLDER GREEDY_JSON [q8_0|q4_k_m|q4_0] [int8|f32]")
    };
    let name = options.first().map_or("q8_0", String::as_str);
    let scheme = Scheme::ALL.into_iter().find(|scheme| scheme.name() == name);
    let activations = match options.get(1).map_or("int8", String::as_str) {
        "f32" => Activations::F32,
        "int8" => Activations::Int8,
        other => bail!("activations {other:?}: known are int8 and f32"),
    };
    let quantization =
        Quantization { encoding: Encoding::Ggml(scheme.context("no such format")?), activations };

    let text = std::fs::read_to_string(recorded).with_context(|| recorded.clone())?;
    let recorded: serde_json::Value = serde_json::from_str(&text).with_context(|| recorded.clone())?;
    let cases = recorded["cases"].as_array().context("cases")?;
    let load = |quantization| -> anyhow::Result<Llm> {
        let options = LoadOptions { quantization, ..LoadOptions::default() };
        Ok(load_model(Path::new(folder), &Device::flex(), &options, &mut |_| {})?.model.llm)
    };
    let (floats, quantised) = (load(None)?, load(Some(quantization))?);

    let (mut tokens, mut equal, mut divergence, mut margins) = (0, 0, 0.0, Vec::new());
    for case in cases {
        let ids = |key: &str| -> anyhow::Result<Vec<i64>> {
            let ids = case[key].as_array().with_context(|| key.to_owned())?;
            Ok(ids.iter().filter_map(serde_json::Value::as_i64).collect())
        };
        let (prompt, answer) = (ids("prompt_ids")?, ids("new_ids")?);
        let wanted = scores(&floats, &prompt, &answer)?;
        for (wanted, ours) in wanted.iter().zip(scores(&quantised, &prompt, &answer)?) {
            let best = largest(wanted);
            tokens += 1;
            divergence += kl(wanted, &ours);
            match largest(&ours) {
                choice if choice == best => equal += 1,
                choice => margins.push(wanted[best] - wanted[choice]),
            }
        }
    }
    margins.sort_by(f64::total_cmp);
    println!("{name}, {activations:?}: {equal} of {tokens} choices are those of the floats");
    println!("KL divergence: {:.5} on average", divergence / f64::from(tokens));
    println!("margins of the floats where the choice differs: {margins:.3?}");
    Ok(())
}

/// The scores before each token of `answer`.
fn scores(llm: &Llm, prompt: &[i64], answer: &[i64]) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut cache = llm.new_cache();
    let slot = cache.take(prompt.len(), answer.len());
    let texts = std::iter::once(prompt).chain(answer.chunks(1)).take(answer.len());
    let read = |ids: &[i64]| {
        let inputs: Tensor<3> = llm.embed(ids).unsqueeze();
        let states = llm.forward(inputs, cache.texts(&[(slot, ids.len())]));
        let last = states.narrow(1, ids.len() - 1, 1).squeeze_dim::<2>(0);
        let scores = llm.logits(last).into_data().try_to_vec::<f32>();
        let scores = scores.map_err(|error| anyhow::anyhow!("scores: {error:?}"))?;
        Ok(scores.into_iter().map(f64::from).collect())
    };
    texts.map(read).collect()
}

fn largest(scores: &[f64]) -> usize {
    (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

/// The Kullback-Leibler divergence of the probabilities of `b` from those of `a`.
fn kl(a: &[f64], b: &[f64]) -> f64 {
    let log_sum = |scores: &[f64]| {
        let max = scores[largest(scores)];
        max + scores.iter().map(|score| (score - max).exp()).sum::<f64>().ln()
    };
    let (sum_a, sum_b) = (log_sum(a), log_sum(b));
    a.iter().zip(b).map(|(a, b)| (a - sum_a).exp() * ((a - sum_a) - (b - sum_b))).sum()
}
