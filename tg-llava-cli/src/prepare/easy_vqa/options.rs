//! How easy-VQA is laid out.

use std::num::NonZeroUsize;

use crate::prepare::Existing;

/// How easy-VQA is laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EasyVqaOptions {
    /// Questions in one conversation of the TRAINING split. A test sample always has one, so that each is
    /// answered from the picture alone and counted by itself.
    pub questions_per_sample: QuestionsPerSample,
    /// Variants of each picture of the TRAINING split.
    pub copies: Copies,
    /// Samples of a curriculum about the TRAINING split, `curriculum.json` beside `train.json`; `None` for none.
    /// They are in learning order, for one epoch with the order `sequential`: the first fifth asks for shapes
    /// alone, the next tenth for shapes and colours, the rest has all kinds of questions. On `train.json`, where
    /// most answers are yes or no, a small model from scratch stays with answering from the question alone.
    pub curriculum: Option<NonZeroUsize>,
    /// The first pictures of each split alone; `None` for all.
    pub limit: Option<NonZeroUsize>,
    /// What to do where the output folder holds something already.
    pub existing: Existing,
}

/// How many questions about one picture go into one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionsPerSample {
    /// At most this many, a turn each; a picture with more questions gives several samples.
    UpTo(NonZeroUsize),
    /// All questions about a picture.
    All,
}

impl QuestionsPerSample {
    /// One question, one sample.
    pub const ONE: Self = Self::UpTo(NonZeroUsize::MIN);

    /// The most questions of one sample.
    pub(super) fn most(self) -> usize {
        match self {
            Self::UpTo(count) => count.get(),
            Self::All => usize::MAX,
        }
    }
}

impl Default for QuestionsPerSample {
    fn default() -> Self {
        Self::ONE
    }
}

/// How many variants of a picture there are, itself included: 1 to [`Copies::MOST`].
///
/// The others are the picture shifted, as far as its shape stays whole, and one time in two mirrored left for
/// right. That changes no answer, since no question is about a place or a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies(u8);

impl Copies {
    /// The picture alone.
    pub const ONE: Self = Self(1);

    /// The most there can be.
    pub const MOST: usize = 64;

    /// `count` variants; `None` unless it is 1 to [`Copies::MOST`].
    pub fn new(count: usize) -> Option<Self> {
        let count = u8::try_from(count).ok()?;
        (1..=Self::MOST).contains(&count.into()).then_some(Self(count))
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0.into()
    }
}

impl Default for Copies {
    fn default() -> Self {
        Self::ONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_1_to_64_copies() {
        let counts = [0, 1, 64, 65, 257].map(|count| Copies::new(count).map(Copies::count));
        assert_eq!(counts, [None, Some(1), Some(64), None, None]);
        assert_eq!(Copies::default().count(), 1);
    }
}
