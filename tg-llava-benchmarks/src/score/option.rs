//! Which option an answer means.

use crate::text;

/// By whose rules an answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rules {
    /// Those of the paper's time, October 2024.
    Of2024,
    /// Those of VLMEvalKit at commit e8e78f05.
    Current,
}

/// The letter for an answer that is none.
pub const REFUSED: char = 'Z';

/// Answers that refuse.
const REFUSALS: [&str; 4] = [
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
];

/// The option that `answer` names (`can_infer`); [`REFUSED`] where it refuses, `None` where it cannot be read.
pub fn infer(answer: &str, options: &[(char, String)], rules: Rules) -> Option<char> {
    by_letter(answer, options, rules).or_else(|| by_text(answer, options, rules))
}

fn by_letter(answer: &str, options: &[(char, String)], rules: Rules) -> Option<char> {
    if answer.contains("Failed to obtain answer via API") {
        return None;
    }
    if REFUSALS.iter().any(|refusal| answer.contains(refusal)) {
        return Some(REFUSED);
    }
    let plain = answer.replace(|c: char| ".()[],:;!*#{}".contains(c), " ");
    let words = text::words(&plain);
    let place = |letter: char| words.iter().position(|word| word.chars().eq([letter]));
    let named: Vec<(char, usize)> =
        options.iter().filter_map(|&(letter, _)| Some((letter, place(letter)?))).collect();
    match named.as_slice() {
        // In a long answer a letter far from its end is more likely a word.
        &[(letter, at)] if rules == Rules::Of2024 || at + 5 > words.len() => return Some(letter),
        [] if words.contains(&"Z") => return Some(REFUSED),
        _ => {}
    }
    let letter = if rules == Rules::Current { after_answer_is(answer) } else { None };
    letter.filter(|letter| options.iter().any(|(option, _)| option == letter))
}

/// The letter at the first match of `answer\s+is\s+\**([ABCD])`, in any case.
fn after_answer_is(answer: &str) -> Option<char> {
    // `ſ` is an s in another case.
    let lower: Vec<char> =
        answer.chars().map(|c| if c == 'ſ' { 's' } else { c.to_ascii_lowercase() }).collect();
    (0..lower.len()).find_map(|start| {
        let rest = blanks(word(&lower[start..], "answer")?)?;
        let mut rest = blanks(word(rest, "is")?)?;
        while let ['*', more @ ..] = rest {
            rest = more;
        }
        rest.first().copied().filter(|c| matches!(c, 'a'..='d')).map(|c| c.to_ascii_uppercase())
    })
}

fn word<'a>(text: &'a [char], word: &str) -> Option<&'a [char]> {
    let count = word.len();
    (text.len() >= count && text[..count].iter().copied().eq(word.chars())).then(|| &text[count..])
}

fn blanks(text: &[char]) -> Option<&[char]> {
    let count = text.iter().take_while(|&&c| text::is_space(c)).count();
    (count > 0).then(|| &text[count..])
}

fn by_text(answer: &str, options: &[(char, String)], rules: Rules) -> Option<char> {
    let answer = answer.to_lowercase();
    let length: usize = options.iter().map(|(_, option)| option.chars().count()).sum();
    if rules == Rules::Current && answer.chars().count() > 2 * length {
        return None;
    }
    let mut named = options.iter().filter(|(_, option)| answer.contains(&option.to_lowercase()));
    match (named.next(), named.next()) {
        (Some(&(letter, _)), None) => Some(letter),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Vec<(char, String)> {
        [('A', "a red ball"), ('B', "a blue ball"), ('C', "no ball")]
            .map(|(c, text)| (c, text.to_owned()))
            .into()
    }

    #[test]
    fn letters_count_near_the_end_and_texts_where_there_is_none() {
        for (answer, current, of_2024) in [
            ("B", Some('B'), Some('B')),
            ("(B).", Some('B'), Some('B')),
            ("A or B", None, None),
            ("A fine thing lies on that table", None, Some('A')),
            ("The answer is blue", Some('B'), None),
            ("the answer is **c**", Some('C'), None),
            ("the answer is d, a red ball", Some('A'), Some('A')),
            ("A blue ball", Some('A'), Some('A')),
            ("it is no ball", Some('C'), Some('C')),
            ("Z", Some(REFUSED), Some(REFUSED)),
            ("Cannot determine the answer: A", Some(REFUSED), Some(REFUSED)),
            ("Failed to obtain answer via API. A", None, None),
            ("", None, None),
        ] {
            let found = [Rules::Current, Rules::Of2024].map(|rules| infer(answer, &options(), rules));
            assert_eq!(found, [current, of_2024], "{answer}");
        }
    }
}
