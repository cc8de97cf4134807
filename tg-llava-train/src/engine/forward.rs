//! The model's forward pass cut into segments for the [`Tape`]; what it computes is `TgLlava::forward`.

use burn::tensor::Tensor;
use tg_llava_core::Result;
use tg_llava_core::llm::{TokenBatch, splice};
use tg_llava_core::model::{GuideTexts, ImageBatch, ModelBatch, TgLlava};
use tg_llava_core::multimodal::SplicePlan;

use super::parts::TrainedParts;
use super::tape::{Tape, Var};

/// A batch on the tape.
pub struct Recorded {
    /// What stands where.
    pub plan: SplicePlan,
    /// `[batch, len, llm_hidden]`, before the decoder's final norm.
    pub hidden_states: Var,
}

/// What the bridges read of the guide texts, a row a picture.
struct Guides {
    /// `[num_images, len, text_hidden]`.
    last_hidden_state: Var,
    /// `[num_images, 1, text_hidden]`.
    pooled: Var,
    masks: Vec<Vec<bool>>,
}

/// Runs `batch` through `model` on `tape`.
///
/// # Errors
/// Where text, pictures and model do not fit together.
pub fn record<'m>(
    tape: &mut Tape<'m>,
    model: &'m TgLlava,
    parts: TrainedParts,
    batch: &'m ModelBatch,
) -> Result<Recorded> {
    let plan = model.plan(batch)?;
    let image_tokens = match &batch.images {
        Some(images) => Some(record_image_tokens(tape, model, parts, images, &batch.guides)?),
        None => None,
    };
    let inputs: Vec<Var> = image_tokens.into_iter().collect();
    let embed_plan = plan.clone();
    let mut hidden = tape
        .run_one(parts.llm, &inputs, move |inputs| splice(&embed_plan, &model.llm, inputs.first().cloned()));
    let tokens = TokenBatch { positions: plan.positions.clone(), mask: plan.mask.clone() };
    let context = model.llm.context(&tokens, None);
    for layer in &model.llm.layers {
        let context = context.clone();
        hidden = tape.run_one(parts.llm, &[hidden], move |x| layer.forward(x[0].clone(), &context, None));
    }
    Ok(Recorded { plan, hidden_states: hidden })
}

/// Decoder tokens of each picture, `[num_images, num_image_tokens, llm_hidden]`.
fn record_image_tokens<'m>(
    tape: &mut Tape<'m>,
    model: &'m TgLlava,
    parts: TrainedParts,
    images: &'m ImageBatch,
    guides: &GuideTexts,
) -> Result<Var> {
    let (features, crops) = record_vision(tape, model, parts, images)?;
    let guides = record_guides(tape, model, parts, guides)?;
    let guided = match (&model.feature_guide, &guides) {
        (Some(_), Some(guides)) => record_feature_guide(tape, model, parts, features, guides.pooled),
        _ => features,
    };
    let projected = match &model.projector {
        Some(projector) => tape.run_one(parts.projector, &[guided], move |x| projector.forward(x[0].clone())),
        None => guided,
    };
    match (crops, &guides) {
        (Some(crops), Some(guides)) if model.detail_perceiver.is_some() => {
            let tokens = record_detail(tape, model, parts, crops, guides);
            Ok(tape.run_one(false, &[projected, tokens], |x| Tensor::cat(x.to_vec(), 1)))
        }
        _ => Ok(projected),
    }
}

/// Features of the pictures and of their crops. A frozen tower is one segment without a graph.
fn record_vision<'m>(
    tape: &mut Tape<'m>,
    model: &'m TgLlava,
    parts: TrainedParts,
    images: &'m ImageBatch,
) -> Result<(Var, Option<Var>)> {
    let mm = model.multimodal()?;
    let with_crops = model.detail_perceiver.is_some() && images.crops.is_some();
    let Some(tower) = model.vision_tower.as_ref().filter(|_| parts.vision_tower) else {
        let features = model.vision_features(images)?;
        let images = tape.run_one(false, &[], move |_| features.images.clone());
        let crops = features.crops.map(|crops| tape.run_one(false, &[], move |_| crops.clone()));
        return Ok((images, crops));
    };
    let index = mm.vision.hidden_state_index(mm.select_layer)?;
    let mut hidden = tape.run_one(true, &[], move |_| {
        let pixels = images.pixels.clone();
        let pixels = match images.crops.clone().filter(|_| with_crops) {
            Some(crops) => Tensor::cat(vec![pixels, crops.flatten::<4>(0, 1)], 0),
            None => pixels,
        };
        tower.embed(tg_llava_core::nn::cast_to(pixels, tower.post_layernorm.gamma.dtype()))
    });
    for layer in &tower.layers[..index] {
        hidden = tape.run_one(true, &[hidden], move |x| layer.forward(x[0].clone(), None));
    }
    let count = images.pixels.dims()[0];
    let select = mm.select_feature;
    let outputs = tape.run(false, &[hidden], move |x| {
        let features = tower.select(x[0].clone(), select);
        let [rows, tokens, width] = features.dims();
        let mut outputs = vec![features.clone().narrow(0, 0, count)];
        if with_crops {
            let crops = features.narrow(0, count, rows - count);
            outputs.push(crops.reshape([count, 4 * tokens, width]));
        }
        outputs
    });
    Ok((outputs[0], outputs.get(1).copied()))
}

fn record_guides<'m>(
    tape: &mut Tape<'m>,
    model: &'m TgLlava,
    parts: TrainedParts,
    guides: &GuideTexts,
) -> Result<Option<Guides>> {
    let Some(tower) = &model.text_tower else { return Ok(None) };
    let Some(plan) = model.plan_guides(guides)? else { return Ok(None) };
    let masks = plan.masks();
    let bias = tower.attention_bias(&plan.input);
    let ids = plan.input.ids.clone();
    let mut hidden = tape.run_one(parts.text_tower, &[], move |_| tower.embed(&ids));
    for layer in &tower.layers {
        let bias = bias.clone();
        hidden =
            tape.run_one(parts.text_tower, &[hidden], move |x| layer.forward(x[0].clone(), bias.as_ref()));
    }
    let outputs = tape.run(parts.text_tower, &[hidden], move |x| {
        let text = tower.finish(x[0].clone(), &plan.input.pooled_positions);
        let text = plan.per_image(text.last_hidden_state, text.pooled);
        vec![text.last_hidden_state, text.pooled.unsqueeze_dim(1)]
    });
    Ok(Some(Guides { last_hidden_state: outputs[0], pooled: outputs[1], masks }))
}

/// The features with the guide's mask added.
fn record_feature_guide<'m>(
    tape: &mut Tape<'m>,
    model: &'m TgLlava,
    parts: TrainedParts,
    features: Var,
    pooled: Var,
) -> Var {
    let Some(guide) = &model.feature_guide else { return features };
    let trains = parts.feature_guide;
    let start = tape.run(trains, &[pooled], move |x| {
        let text = guide.text(x[0].clone().squeeze_dim(1));
        let queries = guide.queries(text.dims()[0]);
        vec![guide.qformer.embed(queries), text]
    });
    let (mut hidden, text) = (start[0], start[1]);
    for layer in &guide.qformer.layers {
        hidden = tape.run_one(trains, &[hidden, text], move |x| layer.forward(x[0].clone(), &x[1]));
    }
    tape.run_one(trains, &[features, hidden], move |x| x[0].clone() + guide.zero_layer.forward(x[1].clone()))
}

fn record_detail<'m>(
    tape: &mut Tape<'m>,
    model: &'m TgLlava,
    parts: TrainedParts,
    crops: Var,
    guides: &Guides,
) -> Var {
    let Some(detail) = &model.detail_perceiver else { return crops };
    let trains = parts.detail_perceiver;
    let bias = detail.text_bias(&guides.masks);
    let start = tape.run(trains, &[crops, guides.last_hidden_state], move |x| {
        let batch = x[0].dims()[0];
        vec![
            detail.embed_crops(x[0].clone()),
            detail.resize_linear.forward(x[1].clone()),
            detail.perceiver.queries(batch),
        ]
    });
    let (crops, text, mut latents) = (start[0], start[1], start[2]);
    for (index, layer) in detail.perceiver.layers.iter().enumerate() {
        latents = match index {
            0 => {
                let bias = bias.clone();
                tape.run_one(trains, &[latents, text], move |x| {
                    layer.forward(x[0].clone(), x[1].clone(), bias.as_ref())
                })
            }
            _ => tape
                .run_one(trains, &[latents, crops], move |x| layer.forward(x[0].clone(), x[1].clone(), None)),
        };
    }
    tape.run_one(trains, &[latents], move |x| detail.finish(x[0].clone()))
}
