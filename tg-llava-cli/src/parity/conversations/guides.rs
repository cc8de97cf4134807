//! Guide texts and their ids.

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;
use tg_llava_core::conversation::{GuideTurn, guide_text};
use tg_llava_core::tokenizer::{GuideCut, GuideTokenizer};

use super::super::report::Row;
use super::labels::{GoldenConversation, turns_of};
use super::{Tally, parting};

#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    clip_guides: Vec<GoldenGuide>,
    #[serde(default)]
    clip_texts: Vec<GoldenGuide>,
}

#[derive(Deserialize)]
struct GoldenGuide {
    id: Option<String>,
    #[serde(alias = "guide_text")]
    text: String,
    ids: Vec<i64>,
    ids_cut_77: Option<Vec<i64>>,
    slow_ids: Option<Vec<i64>>,
}

/// Positions at which the reference cuts guide ids.
const GUIDE_POSITIONS: usize = 77;

pub(super) fn compare(
    file: &File,
    conversations: &[GoldenConversation],
    dir: &Path,
    rows: &mut Vec<Row>,
) -> Result<()> {
    if file.clip_guides.is_empty() && file.clip_texts.is_empty() {
        return Ok(());
    }
    let tokenizer = GuideTokenizer::from_dir(dir, Some(GUIDE_POSITIONS))?;
    let [mut chosen, mut ids, mut cut, mut kept, mut slow, mut unrepaired] =
        std::array::from_fn(|_| Tally::default());
    for golden in file.clip_guides.iter().chain(&file.clip_texts) {
        let text = &golden.text;
        let turns = golden.id.as_ref().and_then(|id| conversations.iter().find(|c| &c.id == id));
        if let Some(conversation) = turns {
            let ours = guide_text(&turns_of(&conversation.conv)?, GuideTurn::Last)?;
            chosen.check(&ours == text, || format!("{ours:?}, expected {text:?}"));
        }
        let whole = tokenizer.encode(text, GuideCut::Whole)?;
        ids.check(whole == golden.ids, || format!("{text:?} {}", parting(&whole, &golden.ids)));
        if let Some(theirs) = &golden.ids_cut_77 {
            let ours = tokenizer.encode(text, GuideCut::DropEnd)?;
            cut.check(&ours == theirs, || format!("{text:?} {}", parting(&ours, theirs)));
            if theirs.len() < golden.ids.len() {
                let ours = tokenizer.encode(text, GuideCut::KeepEnd)?;
                let last = theirs.len() - 1;
                let same = ours[..last] == theirs[..last] && ours.get(last..) == Some(&[tokenizer.end_id()]);
                kept.check(same, || format!("{text:?} {}", parting(&ours, theirs)));
            }
        }
        if let Some(theirs) = &golden.slow_ids {
            if &whole == theirs { &mut slow } else { &mut unrepaired }.check(true, String::new);
        }
    }
    chosen.row("guide texts", rows);
    ids.row("guide ids", rows);
    cut.row("guide ids cut as in the reference", rows);
    kept.by_design("guide ids cut", "the reference drops the end token with the rest; it is kept", rows);
    slow.row("guide ids of the slow tokenizer with ftfy", rows);
    let note = "ftfy's repairs are not made; tokenizer.json is followed";
    unrepaired.by_design("guide ids of the slow tokenizer with ftfy", note, rows);
    Ok(())
}
