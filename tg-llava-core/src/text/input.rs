use crate::config::{EosRule, GuidePadding, TextTowerConfig, TowerFamily};
use crate::error::{Error, Result};

/// A batch of guide texts as ids, padded to one length, with what may be seen of them.
///
/// Holds no tensor: the rules of padding and pooling are plain logic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuideInput {
    /// Ids, rows of equal length.
    pub ids: Vec<Vec<i64>>,
    /// Keys that the text tower attends to.
    pub tower_mask: Vec<Vec<bool>>,
    /// Positions that the detail perceiver attends to.
    pub context_mask: Vec<Vec<bool>>,
    /// Position of each row's pooled state.
    pub pooled_positions: Vec<usize>,
}

impl GuideInput {
    /// Pads `texts` (ids without padding) for the tower.
    ///
    /// CLIP hides id 0 wherever it stands, as the reference does, and the perceiver sees it. With
    /// [`GuidePadding::Visible`] nothing else is hidden: CLIP's padding is another id.
    ///
    /// # Errors
    /// [`Error::Request`] for an empty text, one longer than the tower's positions, or an unknown id.
    pub fn new(
        texts: &[Vec<i64>],
        pad_id: i64,
        padding: GuidePadding,
        config: &TextTowerConfig,
    ) -> Result<Self> {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        // SigLIP always runs at its full length, and pools its last position.
        let len = match config.family {
            TowerFamily::Clip => longest,
            TowerFamily::Siglip => config.max_position_embeddings,
        };
        let mut input = Self {
            ids: Vec::new(),
            tower_mask: Vec::new(),
            context_mask: Vec::new(),
            pooled_positions: Vec::new(),
        };
        for text in texts {
            check(text, config)?;
            let mut ids = text.clone();
            ids.resize(len, pad_id);
            let context: Vec<bool> = match padding {
                GuidePadding::Masked => (0..len).map(|i| i < text.len()).collect(),
                GuidePadding::Visible => vec![true; len],
            };
            let tower = match config.family {
                TowerFamily::Clip => ids.iter().zip(&context).map(|(&id, &seen)| seen && id != 0).collect(),
                TowerFamily::Siglip => vec![true; len],
            };
            input.pooled_positions.push(match padding {
                GuidePadding::Masked => pooled_position(text, config),
                GuidePadding::Visible => pooled_position(&ids, config),
            });
            input.ids.push(ids);
            input.tower_mask.push(tower);
            input.context_mask.push(context);
        }
        Ok(input)
    }
}

fn check(text: &[i64], config: &TextTowerConfig) -> Result<()> {
    if text.is_empty() {
        return Err(Error::Request("a guide text has no ids; even an empty text has start and end".into()));
    }
    if text.len() > config.max_position_embeddings {
        return Err(Error::Request(format!(
            "a guide text has {} ids; the text tower takes at most {}",
            text.len(),
            config.max_position_embeddings
        )));
    }
    match text.iter().find(|id| !usize::try_from(**id).is_ok_and(|id| id < config.vocab_size)) {
        Some(id) => Err(Error::Request(format!(
            "guide id {id} is outside the text tower's vocabulary of {}",
            config.vocab_size
        ))),
        None => Ok(()),
    }
}

/// Where transformers pools a row.
fn pooled_position(ids: &[i64], config: &TextTowerConfig) -> usize {
    if config.family == TowerFamily::Siglip {
        return config.max_position_embeddings - 1;
    }
    match config.eos_rule {
        EosRule::FirstOf(eos) => ids.iter().position(|&id| id == eos).unwrap_or(0),
        EosRule::HighestId => {
            let highest = ids.iter().max();
            ids.iter().position(|id| Some(id) == highest).unwrap_or(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tower_preset;

    fn clip(eos_rule: EosRule) -> TextTowerConfig {
        TextTowerConfig { vocab_size: 10, eos_rule, ..tower_preset("clip-l-336").unwrap().1 }
    }

    #[test]
    fn both_end_rules() {
        let highest = clip(EosRule::HighestId);
        assert_eq!(pooled_position(&[8, 1, 9, 9], &highest), 2);
        // The reference's cut loses the end token; the start token is then the highest.
        assert_eq!(pooled_position(&[8, 1, 2], &highest), 0);
        let first = clip(EosRule::FirstOf(5));
        assert_eq!(pooled_position(&[8, 5, 9, 5], &first), 1);
        assert_eq!(pooled_position(&[8, 9], &first), 0);
    }

    #[test]
    fn padding_is_masked_or_as_the_reference_has_it() {
        let config = clip(EosRule::HighestId);
        let texts = [vec![8, 0, 9], vec![8, 9]];
        let masked = GuideInput::new(&texts, 9, GuidePadding::Masked, &config).unwrap();
        assert_eq!(masked.ids, [[8, 0, 9], [8, 9, 9]]);
        assert_eq!(masked.tower_mask, [[true, false, true], [true, true, false]]);
        assert_eq!(masked.context_mask, [[true, true, true], [true, true, false]]);
        let visible = GuideInput::new(&texts, 9, GuidePadding::Visible, &config).unwrap();
        assert_eq!(visible.tower_mask, [[true, false, true], [true, true, true]]);
        assert_eq!(visible.context_mask, [[true; 3]; 2]);
    }

    #[test]
    fn bad_ids_are_named() {
        let config = clip(EosRule::HighestId);
        let error = |text: Vec<i64>| {
            GuideInput::new(&[text], 9, GuidePadding::Masked, &config).unwrap_err().to_string()
        };
        assert!(error(vec![8, 77, 9]).contains("77"));
        assert!(error(vec![8; 78]).contains("78"));
        assert!(error(vec![]).contains("no ids"));
    }
}
