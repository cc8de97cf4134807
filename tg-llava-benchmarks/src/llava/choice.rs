//! ScienceQA and SEED: the letter of an option.

use crate::text;

/// Letters that ScienceQA has.
const LETTERS: [char; 5] = ['A', 'B', 'C', 'D', 'E'];

/// What ScienceQA's scorer reads out of an answer; `None` where it fails.
pub fn scienceqa(answer: &str) -> Option<char> {
    let mut chars = answer.chars();
    let first = chars.next().filter(|letter| LETTERS.contains(letter));
    match (first, chars.as_str()) {
        (Some(letter), "") => return Some(letter),
        (Some(letter), rest) if rest.starts_with(". ") => return Some(letter),
        _ => {}
    }
    let mut found = answer.split("The answer is ").skip(1).filter_map(|rest| {
        let mut chars = rest.chars();
        let letter = chars.next().filter(char::is_ascii_uppercase)?;
        chars.next().filter(|&c| c != '\n').map(|_| letter)
    });
    match (found.next(), found.next()) {
        (Some(letter), None) => Some(letter),
        _ => None,
    }
}

/// The number of the option, from 0, that a letter names among `choices`.
pub fn number(letter: char, choices: usize) -> Option<usize> {
    LETTERS.iter().take(choices).position(|&known| known == letter)
}

/// What is asked about a turn of ScienceQA's file.
pub fn scienceqa_question(turn: &str) -> String {
    format!("{}\n{}", text::strip(&turn.replace("<image>", "")), super::LETTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_alone_in_front_or_after_the_words() {
        for (answer, letter) in [
            ("B", Some('B')),
            ("B. red", Some('B')),
            ("B.", None),
            ("F", None),
            ("The answer is C.", Some('C')),
            ("The answer is C", None),
            ("The answer is A. The answer is B.", None),
            ("", None),
        ] {
            assert_eq!(scienceqa(answer), letter, "{answer}");
        }
        assert_eq!((number('C', 3), number('D', 3)), (Some(2), None));
    }
}
