//! What another model is asked where an answer cannot be read or compared by rules.

mod prompts;

pub use crate::text::has_chinese;
pub use prompts::{JudgePrompt, JudgePrompts, JudgeRequest, JudgeTask, JudgedRows, TableRows};

/// A request to a judge about one row; its text is for whoever has the prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask<'a> {
    /// The row's index.
    pub index: &'a str,
    /// Which try this is, from 0.
    pub tried: usize,
    /// Temperature that it is to be sampled at.
    pub temperature: f64,
    /// Longest reply, in tokens.
    pub max_tokens: usize,
}

/// Who replies to requests; one that replies nothing is asked no more about that row.
pub trait Judge {
    /// The reply.
    fn reply(&mut self, ask: &Ask<'_>) -> Option<String>;
}

impl<F: FnMut(&Ask<'_>) -> Option<String>> Judge for F {
    fn reply(&mut self, ask: &Ask<'_>) -> Option<String> {
        self(ask)
    }
}

/// How often and how a judge is asked about a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tries {
    pub count: usize,
    /// Temperature of the first try.
    pub first: f64,
    /// What each further try adds.
    pub step: f64,
    pub max_tokens: usize,
}

impl Tries {
    /// Five tries, ever hotter.
    pub const WARMING: Self = Self { count: 5, first: 0.0, step: 0.5, max_tokens: 2048 };

    /// The first reply of which `read` makes something.
    pub fn ask<T>(self, judge: &mut dyn Judge, index: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        for tried in 0..self.count {
            let temperature = self.first + self.step * tried as f64;
            let reply = judge.reply(&Ask { index, tried, temperature, max_tokens: self.max_tokens })?;
            if let Some(found) = read(&reply) {
                return Some(found);
            }
        }
        None
    }
}
