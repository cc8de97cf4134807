//! What is read through the cache, alone or in company, is what is read at once.

use burn::tensor::{Device, Distribution, Tensor, Tolerance};

use super::{Llm, TokenBatch};
use crate::config::tiny;
use crate::nn::{KvCache, RopeScaling, rms_norm};
use crate::pass::Eager;

const SCALINGS: [Option<RopeScaling>; 2] = [None, Some(RopeScaling::Dynamic { factor: 2.0 })];

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

/// One text of `len` tokens.
fn tokens(len: usize) -> TokenBatch {
    TokenBatch { positions: vec![(0..len).collect()], mask: vec![vec![true; len]] }
}

fn close(a: Tensor<3>, b: Tensor<3>) {
    a.into_data().assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(1e-5));
}

/// A new slot that holds `prompt`, with room for one token more.
fn read(llm: &Llm, cache: &mut KvCache, prompt: &Tensor<3>) -> usize {
    let len = prompt.dims()[1];
    let slot = cache.take(len, 1);
    llm.forward(prompt.clone(), cache.texts(&[(slot, len)]));
    slot
}

#[test]
fn a_text_in_pieces_is_the_text_at_once() {
    for scaling in SCALINGS {
        let llm = llm(scaling);
        let input = inputs(11);
        let whole = llm.walk(&mut Eager, input.clone(), &tokens(11));
        let whole = rms_norm(&llm.norm, whole);
        let mut cache = llm.new_cache();
        let slot = cache.take(11, 0);
        for piece in [0..4, 4..6, 6..7, 7..11] {
            let (from, len) = (piece.start, piece.len());
            let states = llm.forward(input.clone().narrow(1, from, len), cache.texts(&[(slot, len)]));
            close(states, whole.clone().narrow(1, from, len));
        }
        assert_eq!(cache.len(slot), 11);
    }
}

/// Dynamic scaling turns each text by the length of its own context, within and past the trained one.
#[test]
fn texts_of_unequal_length_are_each_their_own() {
    for scaling in SCALINGS {
        let llm = llm(scaling);
        let prompts = [3, 11, 6].map(inputs);
        let (new, more) = (inputs(3), inputs(5));
        let mut cache = llm.new_cache();
        let slots = prompts.each_ref().map(|prompt| read(&llm, &mut cache, prompt));
        // A prompt comes while the others go on.
        let slot = cache.take(5, 0);
        let together = Tensor::cat(vec![new.clone(), more.clone()], 1);
        let together =
            llm.forward(together, cache.texts(&[(slots[0], 1), (slots[1], 1), (slots[2], 1), (slot, 5)]));
        for (row, prompt) in prompts.iter().enumerate() {
            let mut cache = llm.new_cache();
            let slot = read(&llm, &mut cache, prompt);
            let alone = llm.forward(new.clone().narrow(1, row, 1), cache.texts(&[(slot, 1)]));
            close(together.clone().narrow(1, row, 1), alone);
        }
        let alone = rms_norm(&llm.norm, llm.walk(&mut Eager, more, &tokens(5)));
        close(together.narrow(1, 3, 5), alone);
    }
}
