//! Reading golden tensors, and measuring how far ours are from them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use burn::tensor::{DType, Tensor, bf16, f16};
use safetensors::{Dtype, SafeTensors};
use tg_llava_core::nn::cast_to;

use super::report::Row;

/// A tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<T> {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<T>,
}

impl<T: Clone> Array<T> {
    /// The first axis as rows.
    pub fn rows(&self) -> Vec<Vec<T>> {
        let width = self.values.len() / self.shape.first().copied().unwrap_or(1).max(1);
        self.values.chunks(width.max(1)).map(<[T]>::to_vec).collect()
    }
}

/// A device tensor on the host, in f32.
pub fn to_host<const D: usize>(tensor: Tensor<D>) -> anyhow::Result<Array<f32>> {
    let shape = tensor.dims().to_vec();
    let values = cast_to(tensor, DType::F32)
        .try_into_vec_as::<f32>()
        .map_err(|e| anyhow::anyhow!("the device could not give a result: {e}"))?;
    Ok(Array { shape, values })
}

/// The tensors of one golden file, and which of them were looked at.
#[derive(Debug, Default)]
pub struct Golden {
    floats: BTreeMap<String, Array<f32>>,
    ints: BTreeMap<String, Array<i64>>,
    seen: Mutex<BTreeSet<String>>,
}

impl Golden {
    /// Reads a safetensors file of floats and integers.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
        let tensors = SafeTensors::deserialize(&bytes).with_context(|| format!("{}", path.display()))?;
        let mut golden = Self::default();
        for (name, view) in tensors.tensors() {
            let (shape, data) = (view.shape().to_vec(), view.data());
            let mut int = |values: Vec<i64>| {
                golden.ints.insert(name.clone(), Array { shape: shape.clone(), values });
            };
            match view.dtype() {
                Dtype::F32 => {
                    let values = data.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]));
                    golden
                        .floats
                        .insert(name.clone(), Array { shape: shape.clone(), values: values.collect() });
                }
                Dtype::I64 => int(data
                    .chunks_exact(8)
                    .map(|c| i64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
                    .collect()),
                Dtype::I8 => int(data.iter().map(|&b| i64::from(b as i8)).collect()),
                Dtype::F16 | Dtype::BF16 => {
                    let single = |bits: u16| match view.dtype() {
                        Dtype::F16 => f16::from_bits(bits).to_f32(),
                        _ => bf16::from_bits(bits).to_f32(),
                    };
                    let values = data.chunks_exact(2).map(|c| single(u16::from_le_bytes([c[0], c[1]])));
                    golden
                        .floats
                        .insert(name.clone(), Array { shape: shape.clone(), values: values.collect() });
                }
                Dtype::U8 | Dtype::BOOL => int(data.iter().map(|&b| i64::from(b)).collect()),
                other => bail!(
                    "{}: {name} has dtype {other:?}; golden files hold floats and integers",
                    path.display()
                ),
            }
        }
        Ok(golden)
    }

    fn look_at(&self, name: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// The float tensor `name`.
    pub fn float(&self, name: &str) -> Option<&Array<f32>> {
        self.look_at(name);
        self.floats.get(name)
    }

    /// The integer tensor `name`.
    pub fn int(&self, name: &str) -> Option<&Array<i64>> {
        self.look_at(name);
        self.ints.get(name)
    }

    /// Notes that nothing in the model corresponds to `name`.
    pub fn skip(&self, name: &str) {
        self.look_at(name);
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.floats.keys().chain(self.ints.keys()).map(String::as_str)
    }

    /// Names that nothing has asked for: a comparison that forgot them is not complete.
    pub fn unseen(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.names().filter(|name| !seen.contains(*name)).map(str::to_owned).collect()
    }
}

/// Collects the comparisons of one group into a row.
#[derive(Debug)]
pub struct Group {
    name: String,
    tolerance: f64,
    compared: usize,
    worst: f64,
    worst_tensor: String,
    failure: Option<String>,
}

impl Group {
    /// An empty group; differences up to `tolerance` times a tensor's scale pass.
    pub fn new(name: impl Into<String>, tolerance: f64) -> Self {
        Self {
            name: name.into(),
            tolerance,
            compared: 0,
            worst: 0.0,
            worst_tensor: String::new(),
            failure: None,
        }
    }

    /// Compares floats; the difference is measured against the golden tensor's largest value.
    pub fn floats(&mut self, name: &str, ours: &Array<f32>, golden: &Array<f32>) {
        self.masked(name, ours, golden, |_| true);
    }

    /// Compares the floats whose flat index `counts`.
    pub fn masked(
        &mut self,
        name: &str,
        ours: &Array<f32>,
        golden: &Array<f32>,
        counts: impl Fn(usize) -> bool,
    ) {
        if ours.shape != golden.shape {
            return self.fail(format!("{name}: shape {:?}, golden {:?}", ours.shape, golden.shape));
        }
        let indices = || (0..golden.values.len()).filter(|&i| counts(i));
        let scale = indices().map(|i| f64::from(golden.values[i].abs())).fold(0.0, f64::max);
        let scale = if scale == 0.0 { 1.0 } else { scale };
        for i in indices() {
            let difference = (f64::from(ours.values[i]) - f64::from(golden.values[i])).abs() / scale;
            self.note(name, difference);
        }
    }

    /// Compares floats by their absolute difference.
    pub fn absolute(&mut self, name: &str, ours: &Array<f32>, golden: &Array<f32>) {
        if ours.shape != golden.shape {
            return self.fail(format!("{name}: shape {:?}, golden {:?}", ours.shape, golden.shape));
        }
        for (ours, golden) in ours.values.iter().zip(&golden.values) {
            self.note(name, (f64::from(*ours) - f64::from(*golden)).abs());
        }
    }

    /// Compares two numbers by their absolute difference.
    pub fn scalar(&mut self, name: &str, ours: f64, golden: f64) {
        self.note(name, (ours - golden).abs());
    }

    /// Compares integers exactly.
    pub fn ints(&mut self, name: &str, ours: &Array<i64>, golden: &Array<i64>) {
        self.compared += golden.values.len();
        if ours.shape != golden.shape {
            return self.fail(format!("{name}: shape {:?}, golden {:?}", ours.shape, golden.shape));
        }
        if let Some(i) = (0..golden.values.len()).find(|&i| ours.values[i] != golden.values[i]) {
            self.fail(format!("{name}: {} at {i}, golden {}", ours.values[i], golden.values[i]));
        }
    }

    /// Compares anything else exactly.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, ours: &T, golden: &T) {
        self.compared += 1;
        if ours != golden {
            self.fail(format!("{name}: {ours:?}, golden {golden:?}"));
        }
    }

    /// Notes a difference that no tolerance covers; the first one is reported.
    pub fn fail(&mut self, reason: String) {
        self.compared += 1;
        self.failure.get_or_insert(reason);
    }

    fn note(&mut self, name: &str, difference: f64) {
        self.compared += 1;
        // A NaN is worse than any number.
        if difference.is_nan() || difference > self.worst {
            self.worst = if difference.is_nan() { f64::INFINITY } else { difference };
            self.worst_tensor = name.to_owned();
        }
    }

    /// The row of the group; `None` where nothing was compared.
    pub fn row(self) -> Option<Row> {
        if self.compared == 0 {
            return None;
        }
        if let Some(failure) = self.failure {
            let mut row = Row::exact(self.name, self.compared, Some(failure));
            row.tolerance = self.tolerance;
            return Some(row);
        }
        let mut row = Row::numeric(self.name, self.compared, self.worst, self.tolerance);
        if let super::report::Verdict::Fail(reason) = &mut row.verdict {
            *reason = format!("{}: {reason}", self.worst_tensor);
        }
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(values: &[f32]) -> Array<f32> {
        Array { shape: vec![values.len()], values: values.to_vec() }
    }

    #[test]
    fn differences_are_relative_to_the_scale_and_nan_fails() {
        let mut group = Group::new("g", 1e-2);
        group.floats("t", &array(&[100.0, 1.5]), &array(&[100.0, 1.0]));
        let row = group.row().unwrap();
        assert!(!row.failed() && (row.worst - 0.005).abs() < 1e-9);

        let mut group = Group::new("g", 1e-2);
        group.floats("t", &array(&[f32::NAN]), &array(&[1.0]));
        assert!(group.row().unwrap().failed());

        let mut group = Group::new("g", 1e-2);
        group.floats("t", &array(&[1.0, 2.0]), &array(&[1.0]));
        assert!(group.row().unwrap().failed());
    }
}
