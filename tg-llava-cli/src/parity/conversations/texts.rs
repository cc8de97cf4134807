//! The language models' tokenizers.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use super::super::report::Row;
use super::{Tally, Tokenizers, parting};

#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    texts: BTreeMap<String, Vec<GoldenText>>,
    #[serde(default)]
    tokenizer_image_token: Vec<GoldenImagePrompt>,
}

#[derive(Deserialize)]
struct GoldenText {
    text: String,
    ids: Vec<u32>,
    decoded: Option<String>,
    decoded_skip_special: Option<String>,
    slow_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct GoldenImagePrompt {
    tokenizer: String,
    prompt: String,
    ids: Vec<i64>,
}

pub(super) fn compare(file: &File, tokenizers: &mut Tokenizers, rows: &mut Vec<Row>) -> Result<()> {
    for (name, texts) in &file.texts {
        let rebuilt = tokenizers.rebuilt(name)?;
        let tokenizer = tokenizers.get(name)?;
        let (mut ids, mut decoded, mut slow) = (Tally::default(), Tally::default(), Tally::default());
        for golden in texts {
            let text = &golden.text;
            let ours = tokenizer.encode(text, true)?;
            ids.check(ours == golden.ids, || format!("{text:?} {}", parting(&ours, &golden.ids)));
            for (skip, theirs) in [(false, &golden.decoded), (true, &golden.decoded_skip_special)] {
                let Some(theirs) = theirs else { continue };
                let ours = tokenizer.decode(&golden.ids, skip)?;
                decoded.check(&ours == theirs, || format!("{ours:?}, expected {theirs:?}"));
            }
            if let Some(rebuilt) = &rebuilt {
                let theirs = golden.slow_ids.as_ref().unwrap_or(&golden.ids);
                let ours = rebuilt.encode(text, true)?;
                slow.check(&ours == theirs, || format!("{text:?} {}", parting(&ours, theirs)));
            }
        }
        ids.row(format!("{name} ids"), rows);
        decoded.row(format!("{name} decoded"), rows);
        slow.row(format!("{name} ids without tokenizer.json"), rows);
    }
    let mut tally = Tally::default();
    for golden in &file.tokenizer_image_token {
        let ours = tokenizers.get(&golden.tokenizer)?.encode_with_images(&golden.prompt)?.ids;
        tally.check(ours == golden.ids, || format!("{:?} {}", golden.prompt, parting(&ours, &golden.ids)));
    }
    tally.row("prompts with pictures, ids", rows);
    Ok(())
}
