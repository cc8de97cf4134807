//! Pictures of several prompts go through the bridges together, where each keeps the bits that it has alone.

use std::collections::BTreeMap;

use burn::nn::Linear;
use burn::tensor::Tensor;

use super::Prompt;
use crate::error::Result;
use crate::llm::splice;
use crate::model::{GuideTexts, TgLlava, VisionFeatures};
use crate::nn::{RowsAlike, rows_alike};
use crate::pass::{Pass, Site};

/// The decoder's inputs of some prompts, each `[1, len, hidden]`.
///
/// # Errors
/// As [`TgLlava::image_tokens`], for each prompt; never for what was checked against this model.
pub(super) fn embed(model: &TgLlava, prompts: &[&Prompt]) -> Vec<Result<Tensor<3>>> {
    let guided = image_tokens(model, prompts);
    let inputs = |(prompt, tokens): (&&Prompt, Option<Result<_>>)| {
        Ok(splice(&prompt.plan, &model.llm, tokens.transpose()?))
    };
    prompts.iter().zip(guided).map(inputs).collect()
}

/// The guided tokens of each prompt's pictures, `[num_images, num_image_tokens, hidden]`; `None` without pictures.
fn image_tokens(model: &TgLlava, prompts: &[&Prompt]) -> Vec<Option<Result<Tensor<3>>>> {
    let least_len = least_guide_len(model);
    let mut tokens: Vec<_> = prompts.iter().map(|_| None).collect();
    // Guides of one length need no padding, and prompts of one picture are one row everywhere.
    let mut together: BTreeMap<(usize, bool), Vec<usize>> = BTreeMap::new();
    for (index, prompt) in prompts.iter().enumerate() {
        let Some((features, guides)) = &prompt.pictures else { continue };
        let len = guides.ids[0].len();
        if guides.sample_of_image.len() == 1 && least_len.is_some_and(|least| len >= least) {
            together.entry((len, features.crops.is_some())).or_default().push(index);
        } else {
            tokens[index] = Some(model.image_tokens(features, guides));
        }
    }
    for group in together.into_values() {
        let pictures = group.iter().filter_map(|&index| prompts[index].pictures.as_ref());
        let (features, guides): (Vec<_>, Vec<_>) = pictures.cloned().unzip();
        let features = VisionFeatures::together(features);
        let guides = GuideTexts {
            pad_id: guides[0].pad_id,
            ids: guides.into_iter().flat_map(|guides| guides.ids).collect(),
            sample_of_image: (0..group.len()).collect(),
        };
        match model.walk_image_tokens(&mut Alike::new(model), features, &guides) {
            Ok(all) => (0..).zip(group).for_each(|(row, index)| {
                tokens[index] = Some(Ok(all.clone().narrow(0, row, 1)));
            }),
            // Who is to blame shows when each is alone.
            Err(_) => group.into_iter().for_each(|index| {
                let pictures = prompts[index].pictures.as_ref();
                tokens[index] = pictures.map(|(features, guides)| model.image_tokens(features, guides));
            }),
        }
    }
    tokens
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
            let of_latents =
                [&attention.q_proj, &attention.o_proj, &mlp.gate_proj, &mlp.up_proj, &mlp.down_proj];
            fits &= many(of_latents) <= latents;
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
