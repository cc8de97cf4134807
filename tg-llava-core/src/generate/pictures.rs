//! Pictures of several prompts go through the bridges together, where each keeps the bits that it has alone.

use std::collections::BTreeMap;

use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData};

use super::Prompt;
use super::byte_cache::ByteCache;
use super::request::{GuidedKey, Pictures};
use crate::error::Result;
use crate::llm::splice;
use crate::model::{GuideTexts, TgLlava, VisionFeatures};
use crate::nn::{RowsAlike, rows_alike};
use crate::pass::{Pass, Site};

/// Guided tokens of prompts' pictures, `[num_images, num_image_tokens, hidden]`.
pub(super) type GuidedCache = ByteCache<GuidedKey, Tensor<3>>;

/// The decoder's inputs of some prompts, each `[1, len, hidden]`.
///
/// # Errors
/// As [`TgLlava::image_tokens`], for each prompt; never for what was checked against this model.
pub(super) fn embed(model: &TgLlava, prompts: &[&Prompt], kept: &mut GuidedCache) -> Vec<Result<Tensor<3>>> {
    let guided = image_tokens(model, prompts, kept);
    let inputs = |(prompt, tokens): (&&Prompt, Option<Result<_>>)| {
        Ok(splice(&prompt.plan, &model.llm, tokens.transpose()?))
    };
    prompts.iter().zip(guided).map(inputs).collect()
}

/// The guided tokens of each prompt's pictures; `None` without pictures.
fn image_tokens(
    model: &TgLlava,
    prompts: &[&Prompt],
    kept: &mut GuidedCache,
) -> Vec<Option<Result<Tensor<3>>>> {
    let known =
        |prompt: &&Prompt| prompt.pictures.as_ref()?.key.as_ref().and_then(|key| kept.get(key)).map(Ok);
    let mut tokens: Vec<_> = prompts.iter().map(known).collect();
    let unknown: Vec<(usize, &Pictures)> = prompts
        .iter()
        .enumerate()
        .filter(|&(index, _)| tokens[index].is_none())
        .filter_map(|(index, prompt)| Some((index, prompt.pictures.as_ref()?)))
        .collect();
    let (numbers, pictures): (Vec<usize>, Vec<&Pictures>) = unknown.into_iter().unzip();
    for (number, (pictures, guided)) in numbers.into_iter().zip(pictures.iter().zip(guide(model, &pictures)))
    {
        if let (Ok(tokens), Some(key)) = (&guided, &pictures.key) {
            let bytes = tokens.shape().num_elements() * tokens.dtype().size();
            kept.put(key.clone(), tokens.clone(), bytes as u64);
        }
        tokens[number] = Some(guided);
    }
    tokens
}

/// Guides the pictures of several prompts, those together that may.
fn guide(model: &TgLlava, prompts: &[&Pictures]) -> Vec<Result<Tensor<3>>> {
    let least_len = least_guide_len(model);
    // Guides of one length need no padding, and prompts of one picture are one row everywhere.
    let mut groups: BTreeMap<(usize, bool), Vec<usize>> = BTreeMap::new();
    let mut single = Vec::new();
    for (index, Pictures { features, guides, .. }) in prompts.iter().enumerate() {
        let len = guides.ids[0].len();
        if guides.sample_of_image.len() == 1 && least_len.is_some_and(|least| len >= least) {
            groups.entry((len, features.crops.is_some())).or_default().push(index);
        } else {
            single.push(index);
        }
    }
    let mut tokens = BTreeMap::new();
    for group in groups.into_values() {
        match guide_together(model, group.iter().map(|&index| prompts[index])) {
            Ok(all) => tokens.extend(group.into_iter().zip(all.into_iter().map(Ok))),
            // Who is to blame shows when each is alone.
            Err(_) => single.extend(group),
        }
    }
    let alone = |index: usize| (index, model.image_tokens(&prompts[index].features, &prompts[index].guides));
    tokens.extend(single.into_iter().map(alone));
    tokens.into_values().collect()
}

/// Guides single pictures with guides of one length.
fn guide_together<'p>(
    model: &TgLlava,
    prompts: impl Iterator<Item = &'p Pictures>,
) -> Result<Vec<Tensor<3>>> {
    let (features, guides): (Vec<_>, Vec<_>) =
        prompts.map(|pictures| (pictures.features.clone(), pictures.guides.clone())).unzip();
    let guides = GuideTexts {
        pad_id: guides[0].pad_id,
        sample_of_image: (0..guides.len()).collect(),
        ids: guides.into_iter().flat_map(|guides| guides.ids).collect(),
    };
    let features = VisionFeatures::together(features);
    let all = model.walk_image_tokens(&mut Alike::new(model), features, &guides)?;
    // Picked, not narrowed: each may be kept without the others.
    let picture = |row: usize| {
        all.clone().select(0, Tensor::from_data(TensorData::new(vec![row as i64], [1]), &all.device()))
    };
    Ok((0..all.dims()[0]).map(picture).collect())
}

/// Fewest ids of guide texts of one length with which single pictures may go through an [`Alike`] pass together; `None` where they
/// may not.
pub(super) fn least_guide_len(model: &TgLlava) -> Option<usize> {
    let mut least = 1;
    if let Some(tower) = &model.text_tower {
        // SigLIP's reads one row a text.
        let head = tower.head.iter().map(|head| many([head]));
        let blocks = tower.layers.iter().map(|block| {
            let (attention, mlp) = (&block.self_attn, &block.mlp);
            let out = [&attention.out_proj, &mlp.fc1, &mlp.fc2];
            many([&attention.q_proj, &attention.k_proj, &attention.v_proj].into_iter().chain(out))
        });
        least = blocks.max().unwrap_or(least);
        if head.max().is_some_and(|many| many > 1) {
            return None;
        }
    }
    let mut fits = true;
    if let Some(guide) = &model.feature_guide {
        let latents = guide.query_tokens.dims()[1];
        fits &= many([&guide.zero_layer]) <= latents;
        for layer in &guide.qformer.layers {
            let (attention, ffn) = (&layer.attention, &layer.ffn);
            let more = [&attention.dense, &ffn.up, &ffn.down];
            let all = [&attention.query, &attention.key, &attention.value].into_iter().chain(more);
            fits &= many(all) <= latents;
        }
    }
    if let (Some(projector), Some(mm)) = (&model.projector, &model.config().multimodal) {
        fits &= many(&projector.layers) <= mm.num_vision_tokens();
    }
    if let Some(detail) = &model.detail_perceiver {
        let latents = detail.perceiver.latents.dims()[0];
        let crops = detail.position_embedding.weight.dims()[0];
        fits &= many([&detail.pre_mlp.fc1, &detail.pre_mlp.fc2]) <= crops;
        fits &= many([&detail.proj.fc1, &detail.proj.fc2]) <= latents;
        least = least.max(many([&detail.resize_linear]));
        for layer in &detail.perceiver.layers {
            let (attention, mlp) = (&layer.self_attn, &layer.mlp);
            let mlp = [&mlp.gate_proj, &mlp.up_proj, &mlp.down_proj].map(|layer| layer.rows_alike().many);
            fits &= many([&attention.q_proj, &attention.o_proj]) <= latents;
            fits &= mlp.into_iter().all(|many| many <= latents);
            // The latents stand behind what they read: the text first, then the crops.
            let of_all = many([&attention.k_proj, &attention.v_proj]);
            fits &= of_all <= crops + latents;
            least = least.max(of_all.saturating_sub(latents));
        }
    }
    fits.then_some(least)
}

/// Rows that a text needs so that others may go through `layers` with it.
fn many<'a>(layers: impl IntoIterator<Item = &'a Linear>) -> usize {
    let all = layers.into_iter().map(|layer| rows_alike(&layer.weight.val()));
    all.fold(RowsAlike::ANY, RowsAlike::and).many
}

/// Computes each step for all pictures, but picture by picture where they are a single row: a product of one row has an order of
/// its own.
struct Alike {
    /// Whether it has.
    single_rows_differ: bool,
}

impl Alike {
    fn new(model: &TgLlava) -> Self {
        let guide = model.feature_guide.iter();
        Self {
            single_rows_differ: guide
                .map(|guide| many([&guide.resize_linear]))
                .max()
                .is_some_and(|many| many > 1),
        }
    }
}

impl<'m> Pass<'m> for Alike {
    type Var = Tensor<3>;

    fn run(
        &mut self,
        at: Site,
        inputs: &[Tensor<3>],
        step: impl Fn(&[Tensor<3>]) -> Vec<Tensor<3>> + 'm,
    ) -> Vec<Tensor<3>> {
        let single_row = matches!(at, Site::GuideEmbed | Site::GuideCrossAttention(_));
        let pictures = inputs.first().map_or(0, |input| input.dims()[0]);
        if pictures < 2 || !(single_row && self.single_rows_differ) {
            return step(inputs);
        }
        let mut outputs: Vec<Vec<Tensor<3>>> = Vec::new();
        for picture in 0..pictures {
            let of_picture: Vec<_> = inputs.iter().map(|input| input.clone().narrow(0, picture, 1)).collect();
            let of_picture = step(&of_picture);
            outputs.resize_with(of_picture.len(), Vec::new);
            outputs.iter_mut().zip(of_picture).for_each(|(all, output)| all.push(output));
        }
        outputs.into_iter().map(|output| Tensor::cat(output, 0)).collect()
    }
}
