//! From each rank's gradients to sums of which each rank owns a slice.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::Module;
use burn::tensor::{DType, Device, Gradients, Tensor};
use tg_llava_core::nn::cast_to;
use tg_llava_core::pass::Site;

use super::tape::GradientSink;
use super::units::{Member, Units};
use crate::optim::ParameterGradients;
use crate::parallel::{Collective, ParallelError, ShardLayout};

/// The gradients of a step so far: this rank's slices of their sums over all micro-batches, in f32.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// By path.
    pub slices: BTreeMap<String, Tensor<1>>,
    /// Parameters for which this rank had a gradient.
    pub seen: BTreeSet<String>,
}

/// Takes the gradients of one micro-batch and adds them, with those of the other ranks' micro-batches of the same round, to [`Sums`].
///
/// A unit leaves as soon as the backward pass is through with it. Slices are added by rank, so that the sums are those of one
/// rank alone, to the bit. Every rank sends every unit in every round, zeros where it has nothing.
pub(super) struct Reducer<'a> {
    units: &'a Units,
    device: &'a Device,
    collective: &'a mut dyn Collective,
    sums: &'a mut Sums,
    /// What this micro-batch has given so far and has not left.
    local: ParameterGradients,
    /// The next unit to leave.
    next: usize,
}

impl<'a> Reducer<'a> {
    /// For a round of one micro-batch on each rank.
    pub fn new(
        units: &'a Units,
        device: &'a Device,
        collective: &'a mut dyn Collective,
        sums: &'a mut Sums,
    ) -> Self {
        Self { units, device, collective, sums, local: ParameterGradients::new(), next: 0 }
    }

    /// Ends the round: what has not left yet, leaves.
    pub fn finish(mut self) -> Result<(), ParallelError> {
        self.send_before(self.units.len())
    }

    fn send_before(&mut self, unit: usize) -> Result<(), ParallelError> {
        while self.next < unit {
            self.send(self.next)?;
            self.next += 1;
        }
        Ok(())
    }

    fn send(&mut self, unit: usize) -> Result<(), ParallelError> {
        let world = self.collective.world();
        let mut members: Vec<&Member> = Vec::new();
        let mut full = Vec::new();
        for member in self.units.members(unit) {
            let gradient = self.local.take(&member.path);
            if gradient.is_some() {
                self.sums.seen.insert(member.path.clone());
            } else if world.size() == 1 {
                continue;
            }
            let layout = ShardLayout { count: member.count, ranks: world.local_size() };
            full.push(padded(gradient, layout, member.travels, self.device));
            members.push(member);
        }
        if members.is_empty() {
            return Ok(());
        }
        for (member, slices) in members.into_iter().zip(self.collective.transpose(full)?) {
            let len = ShardLayout { count: member.count, ranks: world.local_size() }.len();
            let sum = self.sums.slices.remove(&member.path);
            let sum = match world.local_size() {
                1 => add(sum, slices),
                ranks => (0..ranks).fold(sum, |sum, rank| {
                    // Added to something even where it is the first: a view would keep the slices of all ranks alive.
                    let sum = sum.unwrap_or_else(|| Tensor::zeros([len], (self.device, DType::F32)));
                    add(Some(sum), slices.clone().narrow(0, rank * len, len))
                }),
            };
            self.sums.slices.extend(sum.map(|sum| (member.path.clone(), sum)));
        }
        Ok(())
    }
}

impl GradientSink for Reducer<'_> {
    fn add<M: Module>(&mut self, module: &M, gradients: &Gradients) {
        self.local.add(module, gradients);
    }

    fn passed(&mut self, site: Site) -> Result<(), ParallelError> {
        self.send_before(self.units.ready_after(site))
    }
}

fn add(sum: Option<Tensor<1>>, slice: Tensor<1>) -> Option<Tensor<1>> {
    let slice = cast_to(slice, DType::F32);
    Some(match sum {
        Some(sum) => sum + slice,
        None => slice,
    })
}

/// A gradient as it travels; zeros where there is none, and behind the last value.
fn padded(gradient: Option<Tensor<1>>, layout: ShardLayout, dtype: DType, device: &Device) -> Tensor<1> {
    let zeros = |count: usize| Tensor::zeros([count], (device, dtype));
    let Some(gradient) = gradient else { return zeros(layout.padded()) };
    let gradient = cast_to(gradient, dtype);
    match layout.padded() - layout.count {
        0 => gradient,
        rest => Tensor::cat(vec![gradient, zeros(rest)], 0),
    }
}
