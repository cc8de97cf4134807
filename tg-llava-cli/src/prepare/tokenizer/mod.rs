//! Small tokenizers for a model that is trained from scratch, made from the texts of its training data: one for the
//! decoder, and one for the text tower that reads the guide.

mod bytes;
mod corpus;
mod decoder;
mod guide;
mod train;

use std::path::{Path, PathBuf};

use serde::Serialize;
use tg_llava_core::conversation::Template;

use super::output::OutputFolder;
use super::{Existing, PrepareError};
use corpus::Corpus;
use tg_llava_train::data::{LlavaDataset, OnBadSample};

pub use decoder::least_vocabulary as least_decoder_vocabulary;
pub use guide::least_vocabulary as least_guide_vocabulary;

/// The folder of the decoder's tokenizer, in the output folder.
pub const DECODER_FOLDER: &str = "decoder";

/// The folder of the guide's tokenizer, in the output folder.
pub const GUIDE_FOLDER: &str = "guide";

/// A file of a tokenizer: its name and text.
type TokenizerFile = (&'static str, String);

/// The texts to train on, one after the other.
type Texts<'a> = &'a mut (dyn Iterator<Item = String> + Send);

/// How the tokenizers are made.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerOptions {
    /// Most tokens of the decoder's tokenizer, the special ones included; at least [`least_decoder_vocabulary`].
    pub vocab_size: usize,
    /// Most tokens of the guide's tokenizer, the special ones included; at least [`least_guide_vocabulary`].
    pub guide_vocab_size: usize,
    /// The layout in which the decoder will see the conversations, so that the words of the template get tokens.
    pub template: &'static Template,
    /// What to do where the output folder holds something already.
    pub existing: Existing,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenizerSummary {
    /// The folder.
    pub out: PathBuf,
    /// Samples of the training data.
    pub samples: usize,
    /// Tokens of the decoder's tokenizer: fewer than asked for where every word has one already.
    pub vocab_size: usize,
    /// Tokens of the guide's tokenizer, likewise.
    pub guide_vocab_size: usize,
}

/// Trains both tokenizers on the LLaVA file `data` and writes them to `out/decoder` and `out/guide`.
///
/// The decoder's is byte-level BPE (GPT-2's way) with `<pad>` (0), `<s>` (1) and `</s>` (2); it puts `<s>` before a
/// text. The guide's is CLIP's: lower case, `</w>` behind every word, `<|startoftext|>` and `<|endoftext|>` around
/// the text with the two highest ids. Both know the bytes of any text, whether the training data have them or not.
///
/// # Errors
/// A [`PrepareError`] where the data cannot be used, a vocabulary is too small, or a file cannot be written.
pub fn prepare_tokenizers(
    data: impl AsRef<Path>,
    out: impl AsRef<Path>,
    options: &TokenizerOptions,
) -> Result<TokenizerSummary, PrepareError> {
    train::check_size("decoder", options.vocab_size, least_decoder_vocabulary())?;
    train::check_size("guide", options.guide_vocab_size, least_guide_vocabulary())?;
    let out = out.as_ref();
    let folder = OutputFolder::begin(out, options.existing, &[DECODER_FOLDER, GUIDE_FOLDER])?;
    let data = LlavaDataset::open(data, OnBadSample::Error)?;
    let corpus = Corpus { data: &data, template: options.template };
    let decoder = corpus.with_prompts(|prompts| decoder::train(prompts, options.vocab_size))?;
    let guide = corpus.with_questions(|questions| guide::train(questions, options.guide_vocab_size))?;
    for (name, trained) in [(DECODER_FOLDER, &decoder), (GUIDE_FOLDER, &guide)] {
        folder.create_folder(name)?;
        for (file, text) in &trained.files {
            folder.write(&format!("{name}/{file}"), text)?;
        }
    }
    folder.finish()?;
    Ok(TokenizerSummary {
        out: out.to_path_buf(),
        samples: data.len(),
        vocab_size: decoder.vocab_size,
        guide_vocab_size: guide.vocab_size,
    })
}

/// A tokenizer, ready to be written.
#[derive(Debug, PartialEq, Eq)]
struct Trained {
    files: Vec<TokenizerFile>,
    vocab_size: usize,
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;

    use tempfile::TempDir;
    use tg_llava_core::conversation::{LabelOptions, Turn, label_conversation};
    use tg_llava_core::tokenizer::{GuideCut, GuideKind, GuideTokenizer, TextTokenizer};

    use super::*;

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/easy-vqa/train.json");

    /// What any tokenizer must take: scripts, emoji, controls, and the marks of templates.
    const TEXTS: [&str; 6] = [
        "what is the color of the circle?",
        "Ünïcödé, 漢字 und \u{1f600}!",
        "tabs\tand\n\nlines\r\n  and spaces ",
        "\u{0}\u{7f}\u{85}\u{10ffff}",
        "it's 12345 <b>bold</b>",
        "ÀÉÎ ΣΊΣΥΦΟΣ İstanbul ＡＢＣ ǅ",
    ];

    fn options() -> TokenizerOptions {
        let template = Template::by_name("vicuna_v1").unwrap();
        TokenizerOptions { vocab_size: 512, guide_vocab_size: 512, template, existing: Existing::Refuse }
    }

    fn prepared() -> (TempDir, TextTokenizer, GuideTokenizer) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let summary = prepare_tokenizers(DATA, &out, &options()).unwrap();
        let decoder = TextTokenizer::from_dir(out.join(DECODER_FOLDER)).unwrap();
        let guide = GuideTokenizer::from_dir(out.join(GUIDE_FOLDER), Some(32)).unwrap();
        assert_eq!(summary.vocab_size, decoder.vocab_size());
        assert_eq!(i64::try_from(summary.guide_vocab_size).unwrap(), guide.end_id() + 1);
        (dir, decoder, guide)
    }

    #[test]
    fn the_decoders_takes_any_text_and_gives_it_back() {
        let (_dir, tokenizer, _) = prepared();
        let special = tokenizer.special();
        assert_eq!((special.pad, special.bos, special.eos, special.unk), (Some(0), Some(1), Some(2), None));
        assert_eq!((tokenizer.adds_bos(), tokenizer.pad_id()), (true, 0));
        for text in TEXTS {
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(ids[0], 1);
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        }
        assert_eq!(tokenizer.encode("<s></s><pad>", false).unwrap(), [1, 2, 0]);
    }

    #[test]
    fn words_of_the_data_and_the_template_are_single_tokens() {
        let (_dir, tokenizer, _) = prepared();
        for word in
            [" shape", " color", " yes", " no", " circle", " teal", " assistant", "USER", " ASSISTANT"]
        {
            assert_eq!(tokenizer.encode(word, false).unwrap().len(), 1, "{word:?}");
        }
    }

    #[test]
    fn answers_are_labelled_to_the_letter() {
        let (_dir, tokenizer, _) = prepared();
        let turns =
            [Turn::human("<image>\nwhat shape?"), Turn::gpt("circle"), Turn::human("a?"), Turn::gpt("no")];
        let options = LabelOptions { picture: true, ..LabelOptions::default() };
        let template = Template::by_name("vicuna_v1").unwrap();
        let labelled = label_conversation(&tokenizer, template, &turns, &options).unwrap();
        let learned = labelled.labels.iter().filter(|&&label| label >= 0);
        let learned: Vec<u32> = learned.map(|&label| u32::try_from(label).unwrap()).collect();
        assert_eq!(tokenizer.decode(&learned, false).unwrap(), " circle</s> no</s>");
        assert!(labelled.notes.is_empty(), "{:?}", labelled.notes);
    }

    #[test]
    fn the_guides_takes_any_text_and_ends_with_the_highest_id() {
        let (dir, _, tokenizer) = prepared();
        let end = tokenizer.end_id();
        assert_eq!((tokenizer.kind(), tokenizer.pad_id()), (GuideKind::Clip, end));
        let json = fs::read_to_string(dir.path().join("out/guide/vocab.json")).unwrap();
        let vocab: HashMap<String, i64> = serde_json::from_str(&json).unwrap();
        assert_eq!((vocab["<|startoftext|>"], vocab["<|endoftext|>"]), (end - 1, end));
        assert_eq!((vocab.len() as i64, vocab.values().max()), (end + 1, Some(&end)));
        for text in TEXTS {
            let ids = tokenizer.encode(text, GuideCut::Whole).unwrap();
            assert_eq!((ids[0], ids[ids.len() - 1]), (end - 1, end), "{text:?}");
            // What the vocabulary lacks would be the end token.
            assert!(ids[1..ids.len() - 1].iter().all(|&id| id < end - 1), "{text:?} {ids:?}");
        }
        let one = |text: &str| tokenizer.encode(text, GuideCut::Whole).unwrap();
        assert_eq!(one("What  is\nthe COLOR?"), one("what is the color ?"));
        // Frame, four words, question mark.
        assert_eq!(one("what is the color?").len(), 7);
    }

    #[test]
    fn the_guides_older_files_give_the_same_ids() {
        let (dir, _, tokenizer) = prepared();
        fs::remove_file(dir.path().join("out/guide/tokenizer.json")).unwrap();
        let old = GuideTokenizer::from_dir(dir.path().join("out/guide"), Some(32)).unwrap();
        for text in TEXTS {
            let ids = |tokenizer: &GuideTokenizer| tokenizer.encode(text, GuideCut::Whole).unwrap();
            assert_eq!(ids(&old), ids(&tokenizer), "{text:?}");
        }
    }

    #[test]
    fn the_same_texts_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let all = |name: &str| {
            let out = dir.path().join(name);
            prepare_tokenizers(DATA, &out, &options()).unwrap();
            let files = [
                "decoder/tokenizer.json",
                "decoder/tokenizer_config.json",
                "guide/tokenizer.json",
                "guide/tokenizer_config.json",
                "guide/vocab.json",
                "guide/merges.txt",
            ];
            files.map(|file| fs::read(out.join(file)).unwrap())
        };
        assert_eq!(all("first"), all("second"));
    }

    #[test]
    fn a_vocabulary_without_room_for_every_byte_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (options, expected) in [
            (
                TokenizerOptions { vocab_size: 258, ..options() },
                "258 for the decoder is too small: its special",
            ),
            (TokenizerOptions { guide_vocab_size: 12, ..options() }, "12 for the guide is too small"),
        ] {
            let error = prepare_tokenizers(DATA, dir.path().join("out"), &options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let least = TokenizerOptions {
            vocab_size: least_decoder_vocabulary(),
            guide_vocab_size: least_guide_vocabulary(),
            ..options()
        };
        let out = dir.path().join("least");
        let summary = prepare_tokenizers(DATA, &out, &least).unwrap();
        assert_eq!(
            (summary.vocab_size, summary.guide_vocab_size),
            (least.vocab_size, least.guide_vocab_size)
        );
        let decoder = TextTokenizer::from_dir(out.join(DECODER_FOLDER)).unwrap();
        let guide = GuideTokenizer::from_dir(out.join(GUIDE_FOLDER), None).unwrap();
        for text in TEXTS {
            let ids = decoder.encode(text, true).unwrap();
            assert_eq!((decoder.decode(&ids, true).unwrap().as_str(), ids.len()), (text, text.len() + 1));
            let ids = guide.encode(text, GuideCut::Whole).unwrap();
            assert!(ids[1..ids.len() - 1].iter().all(|&id| id < guide.end_id() - 1), "{text:?}");
        }
    }
}
