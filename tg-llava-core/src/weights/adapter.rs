//! Folders of low-rank adapters as PEFT and LLaVA write them: matrices over a decoder that lies elsewhere, and what was trained whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::convert::read_as;
use super::names::block_linear;
use super::{StoredTensor, TensorSource, WeightsError};
use crate::config::{ADAPTER_CONFIG, LoraConfig};
use crate::error::Result;

/// What PEFT puts before the keys of the model.
pub(super) const PEFT_PREFIX: &str = "base_model.model.";
/// The file of the matrices.
pub(super) const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// The same of older versions.
const ADAPTER_FILE_PYTORCH: &str = "adapter_model.bin";
/// The file of what was trained whole: the bridges.
pub(super) const WHOLE_FILE: &str = "non_lora_trainables.bin";

/// Every file that a folder of adapters may hold weights in.
pub(super) const ADAPTER_FILES: [&str; 3] = [ADAPTER_FILE, ADAPTER_FILE_PYTORCH, WHOLE_FILE];

/// A folder's adapter, with no bytes read yet.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Which layers have a branch.
    pub config: Arc<LoraConfig>,
    dir: PathBuf,
    matrices: TensorSource,
    whole: TensorSource,
}

/// The two matrices of a branch.
#[derive(Clone, Copy)]
pub(super) struct Branch<'a> {
    /// `[rank, d_input]`.
    pub a: &'a StoredTensor,
    /// `[d_output, rank]`.
    pub b: &'a StoredTensor,
    /// Factor on their product.
    pub scale: f64,
}

impl Adapter {
    /// Matrices that are not among `used`, in words.
    pub(super) fn unused(&self, used: &BTreeSet<String>) -> Vec<String> {
        let unused = self.matrices.iter().filter(|(key, _)| !used.contains(*key));
        let say = |(key, stored): (&str, &StoredTensor)| {
            format!(
                "{key} (in {}): over no linear layer of a decoder block that adapter_config.json names",
                stored.path.display()
            )
        };
        unused.map(say).collect()
    }

    /// What does not fit between the adapter and a decoder whose tensors have `shapes` by key.
    ///
    /// # Errors
    /// As [`LoraConfig::branch`].
    pub fn problems(&self, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Vec<String>> {
        let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (key, shape) in shapes {
            self.branch(key, shape, (&mut missing, &mut misshapen), &mut used)?;
        }
        let missing = missing.into_iter().map(|key| format!("missing: {key}"));
        Ok(missing.chain(misshapen).chain(self.unused(&used)).collect())
    }

    /// Leaves out the matrices under `keys`: they have been added already.
    pub(super) fn forget(&mut self, keys: &BTreeSet<String>) {
        let matrices = std::mem::take(&mut self.matrices);
        self.matrices.merge(matrices, |key| (!keys.contains(key)).then(|| key.to_owned()));
    }

    /// Whether a folder holds an adapter, told by its files.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(ADAPTER_CONFIG).is_file() || file_in(dir).is_some()
    }

    /// Opens the adapter in a folder.
    ///
    /// # Errors
    /// Where a file is missing or damaged, the adapter is of another kind, or the folder holds a whole model as well.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = Arc::new(LoraConfig::read(dir)?);
        let damaged = |reason: &str| WeightsError::Damaged { path: dir.to_path_buf(), reason: reason.into() };
        let file = file_in(dir).ok_or_else(|| {
            damaged("adapter_config.json is here, but neither adapter_model.safetensors nor adapter_model.bin; fetch it too")
        })?;
        let mut matrices = TensorSource::default();
        // Files of DeepSpeed hold the adapter's name too, which is this one unless somebody changes it.
        matrices
            .merge(TensorSource::from_file(&file)?, |key| Some(key.replace(".default.weight", ".weight")));
        let mut whole = TensorSource::default();
        let file = dir.join(WHOLE_FILE);
        if file.is_file() {
            whole.merge(TensorSource::from_file(&file)?, |key| Some(whole_key(key)));
        }
        Ok(Self { config, dir: dir.to_path_buf(), matrices, whole })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The matrices under their keys in the file.
    pub fn matrices(&self) -> &TensorSource {
        &self.matrices
    }

    /// What was trained whole, under the keys of a full checkpoint.
    pub fn whole(&self) -> &TensorSource {
        &self.whole
    }

    /// The branch over the matrix that a full checkpoint has under `key`; none where the adapter has none there. `missing` takes the
    /// keys that should be in the file, `misshapen` what is wrong with those that are, `used` both.
    ///
    /// # Errors
    /// As [`LoraConfig::branch`].
    pub(super) fn branch(
        &self,
        key: &str,
        shape: &[usize],
        (missing, misshapen): (&mut Vec<String>, &mut Vec<String>),
        used: &mut BTreeSet<String>,
    ) -> Result<Option<Branch<'_>>> {
        let Some(module) = block_linear(key) else { return Ok(None) };
        let Some(size) = self.config.branch(module)? else { return Ok(None) };
        let [key_a, key_b] = ["A", "B"].map(|which| format!("{PEFT_PREFIX}{module}.lora_{which}.weight"));
        used.extend([key_a.clone(), key_b.clone()]);
        let mut found = |key: &str, wanted: [usize; 2]| {
            let Some(stored) = self.matrices.get(key) else {
                missing.push(format!("{key} (adapter in {})", self.dir.display()));
                return None;
            };
            if stored.shape != wanted {
                let (path, rank) = (stored.path.display(), size.rank);
                misshapen.push(format!(
                    "{key}: {:?} in {path}, {wanted:?} by rank {rank} in adapter_config.json and the decoder's {shape:?}",
                    stored.shape
                ));
                return None;
            }
            Some(stored)
        };
        let (a, b) = (found(&key_a, [size.rank, shape[1]]), found(&key_b, [shape[0], size.rank]));
        Ok(a.zip(b).map(|(a, b)| Branch { a, b, scale: size.scale }))
    }
}

/// PEFT wraps the model in two others, whose names stand before each key.
fn whole_key(key: &str) -> String {
    let key = key.strip_prefix(PEFT_PREFIX).unwrap_or(key);
    if key.starts_with("model.") || key.starts_with("lm_head.") { key.into() } else { format!("model.{key}") }
}

fn file_in(dir: &Path) -> Option<PathBuf> {
    [ADAPTER_FILE, ADAPTER_FILE_PYTORCH].map(|name| dir.join(name)).into_iter().find(|file| file.is_file())
}

impl Branch<'_> {
    /// `W + scale * (B A)` for the matrix of a file, computed in f32 on `device`, and whether all values are finite.
    ///
    /// # Shapes
    /// - output: `[d_output, d_input]`, f32
    ///
    /// # Errors
    /// Where a file cannot give the values.
    pub fn merged(&self, stored: &StoredTensor, device: &Device) -> Result<(Tensor<2>, bool)> {
        let (data, finite) = read_as(stored, DType::F32)?;
        let (merged, branch_finite) = self.added_to(on_device(data, device))?;
        Ok((merged, finite && branch_finite))
    }

    /// The same for a matrix `[d_output, d_input]` of f32 on a device; whether the branch's own values are finite.
    ///
    /// # Errors
    /// Where a file cannot give the values.
    pub fn added_to(&self, base: Tensor<2>) -> Result<(Tensor<2>, bool)> {
        let device = base.device();
        let (a, a_finite) = read_as(self.a, DType::F32)?;
        let (b, b_finite) = read_as(self.b, DType::F32)?;
        let product = on_device(b, &device).matmul(on_device(a, &device));
        Ok((base + product * self.scale, a_finite && b_finite))
    }
}

fn on_device(data: TensorData, device: &Device) -> Tensor<2> {
    Tensor::from_data(data, (device, DType::F32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_what_was_trained_whole_lose_what_peft_adds() {
        for (key, ours) in [
            ("base_model.model.model.mm_projector.0.weight", "model.mm_projector.0.weight"),
            ("model.mm_projector.0.weight", "model.mm_projector.0.weight"),
            ("mm_projector.0.weight", "model.mm_projector.0.weight"),
            ("base_model.model.lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(whole_key(key), ours);
        }
    }

    #[test]
    fn half_an_adapter_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Adapter::is_in(dir.path()));
        let config =
            serde_json::json!({"r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "peft_type": "LORA"});
        std::fs::write(dir.path().join(ADAPTER_CONFIG), config.to_string()).unwrap();
        assert!(Adapter::is_in(dir.path()));
        let error = Adapter::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("adapter_model.safetensors"), "{error}");
        std::fs::rename(dir.path().join(ADAPTER_CONFIG), dir.path().join(ADAPTER_FILE)).unwrap();
        assert!(Adapter::is_in(dir.path()));
        let error = Adapter::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("adapter_config.json"), "{error}");
    }
}
