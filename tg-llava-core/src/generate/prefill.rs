use std::ops::Range;

use crate::nn::RowsAlike;

/// In what pieces prompts go through the decoder: several short ones together, so that its matrices are read once for
/// all, and long ones cut, so that the rows that are being answered need not wait for a whole one.
///
/// Each pass keeps the bits that every prompt has alone and at once (see [`RowsAlike`]).
#[derive(Debug, Clone, Copy)]
pub(super) struct Pieces {
    /// Most tokens of a pass, where pieces may be so small.
    pub tokens: usize,
    pub alike: RowsAlike,
}

impl Pieces {
    /// The next pass over prompts of which the given tokens are unread, at least one of each: which of them it reads, and how many
    /// tokens of each. Nothing where there are no prompts.
    pub fn next(&self, unread: &[Range<usize>]) -> Vec<(usize, usize)> {
        let mut pass = Vec::new();
        let mut room = self.tokens.max(self.alike.piece);
        for (prompt, unread) in unread.iter().enumerate() {
            let alone = unread.end < self.alike.many;
            if alone && !pass.is_empty() {
                continue;
            }
            let len = match self.fitting(unread.len(), room) {
                // Whatever its length, the first one must come forward.
                0 if pass.is_empty() => unread.len(),
                0 => continue,
                len => len,
            };
            pass.push((prompt, len));
            room = room.saturating_sub(len);
            if alone || room == 0 {
                break;
            }
        }
        pass
    }

    /// Tokens of a prompt's `rest` that may be read where there is room for `room`: all, or a piece that leaves another; else none.
    fn fitting(&self, rest: usize, room: usize) -> usize {
        if rest <= room {
            return rest;
        }
        let piece = self.alike.piece.max(1);
        let len = room.min(rest.saturating_sub(piece));
        if len >= piece { len } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(tokens: usize, [many, piece]: [usize; 2]) -> Pieces {
        Pieces { tokens, alike: RowsAlike { few: 1, many, piece } }
    }

    #[test]
    fn short_prompts_go_together_and_long_ones_in_pieces() {
        let pieces = pieces(100, [5, 20]);
        assert_eq!(pieces.next(&[0..30, 0..3, 0..40, 0..300]), [(0, 30), (2, 40), (3, 30)]);
        assert_eq!(pieces.next(&[0..3, 0..30]), [(0, 3)]);
        assert_eq!(pieces.next(&[30..300, 0..3]), [(0, 100)]);
        // The piece that is left is never too small.
        assert_eq!(pieces.next(&[190..300, 0..3]), [(0, 90)]);
        assert_eq!(pieces.next(&[]), []);
    }

    proptest! {
        /// Pass by pass, every prompt is read to its end, and each pass keeps to the limits.
        #[test]
        fn every_prompt_is_read(
            lengths in prop::collection::vec(1usize..400, 1..12),
            tokens in 1usize..200,
            many in 0usize..30,
            longer in 0usize..50,
        ) {
            let pieces = pieces(tokens, [many, many + longer]);
            let piece = (many + longer).max(1);
            let mut unread: Vec<Range<usize>> = lengths.iter().map(|&len| 0..len).collect();
            while unread.iter().any(|unread| !unread.is_empty()) {
                let open: Vec<usize> = (0..unread.len()).filter(|&prompt| !unread[prompt].is_empty()).collect();
                let given: Vec<_> = open.iter().map(|&prompt| unread[prompt].clone()).collect();
                let pass = pieces.next(&given);
                prop_assert_eq!(pass[0].0, 0, "the first prompt comes forward");
                let total: usize = pass.iter().map(|&(_, len)| len).sum();
                prop_assert!(total <= tokens.max(piece) || pass.len() == 1 && total < 2 * piece, "{:?}", pass);
                for &(index, len) in &pass {
                    let unread = &mut unread[open[index]];
                    prop_assert!(pass.len() == 1 || unread.end >= many);
                    prop_assert!(len >= piece || *unread == (0..len), "{:?} of {:?}", len, unread);
                    unread.start += len;
                }
            }
        }
    }
}
