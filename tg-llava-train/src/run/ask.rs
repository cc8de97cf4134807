//! The last question of a sample as a request.

use std::collections::BTreeMap;

use tg_llava_core::Error;
use tg_llava_core::assistant::PromptWriter;
use tg_llava_core::conversation::{Speaker, Turn, guide_text};
use tg_llava_core::generate::{BeamOptions, Engine, EngineOptions, GenerateOptions, RequestId};
use tg_llava_core::model::{EncodedImage, TgLlava};

use super::Prediction;
use crate::data::{Sample, SampleEncoder};

/// Vision features that are kept from batch to batch: data sets ask about one picture several times in a row.
const VISION_BYTES: u64 = 64 << 20;

/// Puts samples' questions to an engine.
pub(super) struct Asking<'m> {
    encoder: &'m SampleEncoder,
    pub engine: Engine<'m>,
    /// Those of the samples that are asked about now, by file name.
    pictures: BTreeMap<String, EncodedImage>,
    options: GenerateOptions,
}

impl<'m> Asking<'m> {
    /// Nothing asked yet; answers will have at most so many tokens, and may be searched for by beams.
    pub fn new(
        model: &'m TgLlava,
        encoder: &'m SampleEncoder,
        max_new_tokens: usize,
        beams: Option<BeamOptions>,
    ) -> Self {
        let (template, tokenizer) = (&encoder.options.template, &encoder.tokenizer);
        // Nobody waits for a single token.
        let options =
            EngineOptions { prefill_tokens: 4096, vision_bytes: VISION_BYTES, ..EngineOptions::default() };
        let stops = GenerateOptions::for_turns(template, tokenizer, &model.config().llm);
        Self {
            encoder,
            engine: Engine::with_options(model, Some(tokenizer), options),
            pictures: BTreeMap::new(),
            options: GenerateOptions { max_new_tokens, beams, ..stops },
        }
    }

    /// Asks the last question of `sample`; the answer is still empty then.
    pub fn ask(&mut self, sample: &Sample) -> Result<(RequestId, Prediction), Error> {
        let (asked, expected) = last_question(&sample.conversations)
            .ok_or_else(|| Error::Request("it holds no answer to compare with".into()))?;
        let options = &self.encoder.options;
        let writer = PromptWriter {
            template: &options.template,
            tokenizer: &self.encoder.tokenizer,
            guide: self.encoder.guide.as_ref(),
            guide_turn: options.guide_turn,
            guide_cut: options.guide_cut,
            marks: options.marks,
        };
        let images = sample.images.iter().map(|file| self.picture(file)).collect::<Result<_, _>>()?;
        let question = guide_text(asked, options.guide_turn)?;
        let request = self.engine.admit(writer.request(asked, images, self.options.clone())?)?;
        let prediction = Prediction {
            id: sample.id.clone(),
            question,
            expected: expected.to_owned(),
            answer: String::new(),
        };
        Ok((request, prediction))
    }

    /// Forgets the files of pictures, which may be many.
    pub fn forget_files(&mut self) {
        self.pictures.clear();
    }

    fn picture(&mut self, file: &str) -> Result<EncodedImage, Error> {
        if let Some(known) = self.pictures.get(file) {
            return Ok(known.clone());
        }
        let prepared = self.encoder.picture(file).map_err(|problem| Error::Request(problem.to_string()))?;
        let encoded = self.engine.encode(prepared)?;
        self.pictures.insert(file.to_owned(), encoded.clone());
        Ok(encoded)
    }
}

/// The conversation up to its last answer, and that answer.
fn last_question(turns: &[Turn]) -> Option<(&[Turn], &str)> {
    let last = turns.iter().rposition(|turn| turn.from == Speaker::Gpt)?;
    Some((&turns[..last], &turns[last].value))
}
