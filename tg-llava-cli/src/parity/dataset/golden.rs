//! The reference's batches.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors};

/// The reference's tensors of one batch.
pub(super) struct GoldenBatch {
    pub name: String,
    pub input_ids: Rows<i64>,
    pub labels: Rows<i64>,
    pub attention_mask: Rows<i64>,
    pub guide_ids: Rows<i64>,
    pub images: Option<Rows<f32>>,
    pub crops: Option<Rows<f32>>,
}

/// A tensor as one slice for each sample of the batch.
pub(super) struct Rows<T> {
    values: Vec<T>,
    length: usize,
}

impl<T> Rows<T> {
    /// The values of sample `row` of the batch.
    pub fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.length..][..self.length]
    }
}

impl GoldenBatch {
    /// The tensors `name.*` of a batch of `samples`; their names are added to `used`.
    pub fn take(
        tensors: &SafeTensors<'_>,
        name: &str,
        samples: usize,
        used: &mut BTreeSet<String>,
    ) -> Result<Self> {
        let mut take = |kind: &str| {
            let name = format!("{name}.{kind}");
            let tensor = tensors.tensor(&name).ok()?;
            used.insert(name.clone());
            Some((name, tensor))
        };
        let mut integers = |kind: &str| -> Result<Rows<i64>> {
            let (name, tensor) = take(kind).with_context(|| format!("{name}.{kind} is missing"))?;
            let values = match tensor.dtype() {
                Dtype::U8 | Dtype::BOOL => tensor.data().iter().map(|&byte| byte.into()).collect(),
                Dtype::I64 => {
                    tensor.data().as_chunks::<8>().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
                }
                other => bail!("{name}: integers expected, found {other:?}"),
            };
            Rows::new(&name, values, samples)
        };
        let input_ids = integers("input_ids")?;
        let labels = integers("labels")?;
        let attention_mask = integers("attention_mask")?;
        let guide_ids = integers("text_guide_ids")?;
        let mut floats = |kind: &str| -> Result<Option<Rows<f32>>> {
            let Some((name, tensor)) = take(kind) else { return Ok(None) };
            ensure!(tensor.dtype() == Dtype::F32, "{name}: F32 expected, found {:?}", tensor.dtype());
            let values =
                tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            Rows::new(&name, values, samples).map(Some)
        };
        let (images, crops) = (floats("images")?, floats("image_patches")?);
        Ok(Self { name: name.into(), input_ids, labels, attention_mask, guide_ids, images, crops })
    }
}

impl<T> Rows<T> {
    fn new(name: &str, values: Vec<T>, samples: usize) -> Result<Self> {
        let divides = samples > 0 && values.len().is_multiple_of(samples);
        ensure!(divides, "{name}: {} values do not make {samples} samples", values.len());
        Ok(Self { length: values.len() / samples, values })
    }
}
