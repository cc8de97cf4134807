//! What is read through the cache, alone or in company, is what is read at once.

use burn::tensor::{Device, Distribution, Tensor, Tolerance};

use super::{Llm, TokenBatch};
use crate::config::tiny;
use crate::nn::{RopeScaling, rms_norm};
use crate::pass::Eager;

fn llm(scaling: Option<RopeScaling>) -> Llm {
    let device = Device::flex();
    device.seed(5);
    let mut config = tiny(40).llm;
    config.rope_scaling = scaling;
    config.max_position_embeddings = 8;
    config.initializer_range = 0.3;
    config.init(&device)
}

fn inputs(len: usize) -> Tensor<3> {
    Tensor::random([1, len, 32], Distribution::Normal(0.0, 1.0), &Device::flex())
}

fn tokens(positions: Vec<Vec<usize>>) -> TokenBatch {
    TokenBatch { mask: positions.iter().map(|row| vec![true; row.len()]).collect(), positions }
}

fn close(a: Tensor<3>, b: Tensor<3>) {
    a.into_data().assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(1e-5));
}

#[test]
fn a_text_in_pieces_is_the_text_at_once() {
    let llm = llm(None);
    let input = inputs(7);
    let whole = llm.walk(&mut Eager, input.clone(), &tokens(vec![(0..7).collect()]));
    let whole = rms_norm(&llm.norm, whole);
    let mut cache = llm.new_cache();
    let slot = cache.take(7);
    for (from, to) in [(0, 4), (4, 6), (6, 7)] {
        let piece = input.clone().narrow(1, from, to - from);
        let states = llm.forward(piece, &tokens(vec![(from..to).collect()]), cache.rows(&[slot]));
        close(states, whole.clone().narrow(1, from, to - from));
    }
    assert_eq!(cache.len(slot), 7);
}

/// Dynamic scaling turns each row by the length of its own context, within and past the trained one.
#[test]
fn rows_of_unequal_length_are_each_their_own() {
    for scaling in [None, Some(RopeScaling::Dynamic { factor: 2.0 })] {
        let llm = llm(scaling);
        let lengths = [3, 11, 6];
        let prompts = lengths.map(inputs);
        let new = inputs(3).reshape([3, 1, 32]);
        let mut cache = llm.new_cache();
        let read = |cache: &mut crate::nn::KvCache, prompt: &Tensor<3>| {
            let len = prompt.dims()[1];
            let slot = cache.take(len + 1);
            llm.forward(prompt.clone(), &tokens(vec![(0..len).collect()]), cache.rows(&[slot]));
            slot
        };
        let slots: Vec<usize> = prompts.iter().map(|prompt| read(&mut cache, prompt)).collect();
        let positions = tokens(lengths.iter().map(|&len| vec![len]).collect());
        let together = llm.forward(new.clone(), &positions, cache.rows(&slots));
        for (row, prompt) in prompts.iter().enumerate() {
            let mut cache = llm.new_cache();
            let slot = read(&mut cache, prompt);
            let position = tokens(vec![vec![lengths[row]]]);
            let alone = llm.forward(new.clone().narrow(0, row, 1), &position, cache.rows(&[slot]));
            close(together.clone().narrow(0, row, 1), alone);
        }
    }
}
