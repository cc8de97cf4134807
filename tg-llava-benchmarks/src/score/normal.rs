//! How the VQA challenge makes answers alike before they are compared.

use crate::text;

const PUNCTUATION: [char; 21] = [
    ';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!',
];

/// Periods beyond this many stay.
const MOST_PERIODS: usize = 32;

/// Which periods go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Periods {
    /// Those with a digit on neither side.
    BetweenNoDigits,
    /// Those with no digit behind them, by a slip in the original's expression.
    BeforeNoDigit,
}

/// Takes punctuation out of a text, or puts a blank in its place; what decides is the original text.
pub fn punctuation(original: &str) -> String {
    punctuation_by(original, Periods::BetweenNoDigits)
}

/// As [`punctuation`], with the periods that another scorer takes.
pub fn punctuation_by(original: &str, periods: Periods) -> String {
    let comma_in_number = has_comma_in_number(original);
    let mut out = original.to_owned();
    for mark in PUNCTUATION {
        let beside_blank = original.contains(&format!("{mark} ")) || original.contains(&format!(" {mark}"));
        out = out.replace(mark, if beside_blank || comma_in_number { "" } else { " " });
    }
    without_periods(&out, periods)
}

fn has_comma_in_number(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    chars.windows(3).any(|window| is_digit(window[0]) && window[1] == ',' && is_digit(window[2]))
}

/// What a regular expression of Python takes for a digit: ten of each script, in a row.
fn is_digit(c: char) -> bool {
    const FIRST: [u32; 22] = [
        0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
        0xe50, 0xed0, 0xf20, 0x1040, 0x17e0, 0x1810, 0xa620, 0xff10,
    ];
    FIRST.iter().any(|&first| (first..first + 10).contains(&u32::from(c)))
}

/// Deletes the first of the periods that go.
fn without_periods(text: &str, periods: Periods) -> String {
    let chars: Vec<char> = text.chars().collect();
    let digit = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|&c| is_digit(c));
    let mut deleted = 0;
    let keep = |(at, c): (usize, &char)| {
        let behind_digit = periods == Periods::BetweenNoDigits && digit(at.checked_sub(1));
        let delete = *c == '.' && !behind_digit && !digit(Some(at + 1)) && deleted < MOST_PERIODS;
        deleted += usize::from(delete);
        (!delete).then_some(*c)
    };
    chars.iter().enumerate().filter_map(keep).collect()
}

/// Lower case, numbers as digits, no articles, contractions as they should be written.
pub fn words(text: &str) -> String {
    let lower = text.to_lowercase();
    let numbers = text::words(&lower)
        .into_iter()
        .map(|word| NUMBERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, digit)| digit));
    let kept = numbers.filter(|word| !["a", "an", "the"].contains(word));
    kept.map(contraction).collect::<Vec<_>>().join(" ")
}

const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

/// The contractions that are put right where one apostrophe is left out. The challenge's table has some in upper case too, which no
/// lower-cased word can be.
const CONTRACTIONS: &str = "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd \
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock \
    oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've \
    someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll \
    they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've \
    who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're \
    you've";

/// A word as the challenge writes it.
fn contraction(word: &str) -> &str {
    // So the table has it.
    if word == "somebody'd" {
        return "somebodyd";
    }
    CONTRACTIONS.split(' ').find(|right| lacks_an_apostrophe(word, right)).unwrap_or(word)
}

/// Whether `word` is `right` without one of its apostrophes.
fn lacks_an_apostrophe(word: &str, right: &str) -> bool {
    word.len() + 1 == right.len()
        && right
            .match_indices('\'')
            .any(|(at, _)| word.starts_with(&right[..at]) && word[at..] == right[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_goes_or_becomes_a_blank() {
        for (text, plain) in [
            ("a-b", "a b"),
            ("a- b-c", "a bc"),
            ("1,000-2", "10002"),
            ("what?", "what "),
            ("3.5 m.", "3.5 m"),
            (".5 5. a.b", ".5 5. ab"),
            ("don't", "don't"),
        ] {
            assert_eq!(punctuation(text), plain, "{text}");
        }
        assert_eq!(punctuation(&".".repeat(40)), ".".repeat(8));
    }

    #[test]
    fn words_are_put_into_one_form() {
        for (text, plain) in [
            ("The Two  dogs", "2 dogs"),
            ("a none", "0"),
            ("dont Im couldn'tve couldntve", "don't im couldn't've couldntve"),
            ("ow's'at yall'd've twas lets hell", "'ow's'at y'all'd've 'twas lets hell"),
            ("somebody'd é", "somebodyd é"),
        ] {
            assert_eq!(words(text), plain, "{text}");
        }
    }
}
