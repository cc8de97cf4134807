use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, TensorData};
use half::{bf16, f16};

/// Keys of what is written with values that are not finite; all clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct NotFinite(Arc<Mutex<BTreeSet<String>>>);

impl NotFinite {
    pub fn add(&self, keys: impl IntoIterator<Item = String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
    }

    /// Those of now, in order.
    pub fn keys(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Whether all values are numbers: what is finite in a file may be too large for another format.
pub(super) fn is_finite(data: &TensorData) -> bool {
    match data.dtype() {
        DType::F16 => data.as_slice::<f16>().is_ok_and(|values| values.iter().all(|value| value.is_finite())),
        DType::BF16 => {
            data.as_slice::<bf16>().is_ok_and(|values| values.iter().all(|value| value.is_finite()))
        }
        _ => data.as_slice::<f32>().is_ok_and(|values| values.iter().all(|value| value.is_finite())),
    }
}
