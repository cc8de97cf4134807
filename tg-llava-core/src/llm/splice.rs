use burn::tensor::{Tensor, TensorData};

use super::Llm;
use crate::multimodal::{SplicePlan, TokenSource};

/// The decoder's inputs that `plan` describes: one gather from a table of text vectors, picture tokens and
/// a zero vector.
///
/// # Shapes
/// - image_features: `[num_images, image_tokens, hidden]`
/// - output: `[batch, len, hidden]`
///
/// # Panics
/// Where the plan names a picture that is not in `image_features`: a programmer's error.
pub fn splice(plan: &SplicePlan, llm: &Llm, image_features: Option<Tensor<3>>) -> Tensor<3> {
    let device = llm.device();
    let text: Vec<i64> = plan.sources.iter().flatten().filter_map(text_id).collect();
    let [num_images, image_tokens, _] = image_features.as_ref().map_or([0; 3], |f| f.dims());
    let zero_row = text.len() + num_images * image_tokens;

    let mut next_text = 0;
    let indices: Vec<i64> = plan
        .sources
        .iter()
        .flatten()
        .map(|source| match *source {
            TokenSource::Text(_) => {
                next_text += 1;
                next_text - 1
            }
            TokenSource::Image { image, token } => {
                assert!(image < num_images, "the plan names picture {image} of {num_images}");
                (text.len() + image * image_tokens + token) as i64
            }
            TokenSource::Padding => zero_row as i64,
        })
        .collect();

    let mut table = Vec::with_capacity(3);
    if !text.is_empty() {
        table.push(llm.embed(&text));
    }
    if let Some(features) = image_features {
        let hidden = features.dims()[2];
        table.push(features.reshape([num_images * image_tokens, hidden]));
    }
    let [_, hidden] = llm.embed_tokens.shape();
    table.push(Tensor::zeros([1, hidden], (&device, llm.dtype())));
    let count = indices.len();
    let indices = Tensor::from_data(TensorData::new(indices, [count]), &device);
    Tensor::cat(table, 0).select(0, indices).reshape([plan.batch(), plan.len(), hidden])
}

fn text_id(source: &TokenSource) -> Option<i64> {
    match source {
        TokenSource::Text(id) => Some(*id),
        _ => None,
    }
}
