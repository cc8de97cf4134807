//! Samples in an order in which a model learns from them.

use std::num::NonZeroUsize;

use super::draws::Draws;
use super::options::Copies;
use super::questions::{Picture, Question, conversation};
use super::variants::variant_name;
use crate::prepare::llava::LlavaSample;
use tg_llava_train::data::Permutations;

/// The most questions of a sample in the last stage.
const MOST_QUESTIONS: usize = 4;

/// `samples` samples about `pictures` in learning order.
///
/// Trained on all kinds of questions at once, a small model from scratch stays where it answers from the question
/// alone, since most are answered yes or no. It gets off that plateau where only the picture tells the answer; and
/// shapes, which are harder to see than colours, are never learnt by a model that has learnt the colours first. So
/// [`Stage`] has shapes first, then colours, then everything.
///
/// The questions of each [`Kind`] go over the pictures that have such questions in shuffled passes, each time with
/// a random one of the picture's copies.
///
/// # Errors
/// What is missing where no picture has a question that a stage needs.
pub(super) fn curriculum(
    pictures: &[Picture],
    copies: Copies,
    samples: NonZeroUsize,
) -> Result<Vec<LlavaSample>, String> {
    let mut draws = Draws::for_curriculum();
    let mut orders = Permutations::new(0, 0);
    let mut passes = Kind::ALL.map(|kind| Passes::new(kind, pictures));
    let sample = |at| {
        let (kind, most) = Stage::of(at, samples.get()).draw(&mut draws);
        let picture = &pictures[passes[kind as usize].next(&mut orders).ok_or_else(|| kind.missing())?];
        let asked: Vec<&Question> =
            picture.questions.iter().filter(|question| kind.takes(question)).collect();
        let chosen = orders.permutation(asked.len()).into_iter().take(most).map(|at| asked[at]);
        Ok(LlavaSample {
            id: format!("curriculum-{at}"),
            image: format!("train/{}.png", variant_name(picture.number, draws.below(copies.count()))),
            conversations: conversation(chosen),
        })
    };
    (0..samples.get()).map(sample).collect()
}

/// The parts of a curriculum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The first fifth: one question a sample, about the shape.
    Shapes,
    /// The next tenth: one question a sample, about the shape or the colour.
    ShapesAndColours,
    /// The rest: one to four questions a sample of any kind. Two fifths of these samples have no question that is
    /// answered yes or no, and three tenths of those only questions about the shape.
    Everything,
}

impl Stage {
    /// The stage of sample `at` of `samples`.
    fn of(at: usize, samples: usize) -> Self {
        let shapes = samples / 5;
        match at {
            at if at < shapes => Self::Shapes,
            at if at < shapes + samples / 10 => Self::ShapesAndColours,
            _ => Self::Everything,
        }
    }

    /// Which questions a sample takes, and how many of these at most.
    fn draw(self, draws: &mut Draws) -> (Kind, usize) {
        match self {
            Self::Shapes => (Kind::Shape, 1),
            Self::ShapesAndColours if draws.chance(50) => (Kind::Shape, 1),
            Self::ShapesAndColours => (Kind::Colour, 1),
            Self::Everything => {
                let kind = match draws.chance(40) {
                    true if draws.chance(30) => Kind::Shape,
                    true => Kind::What,
                    false => Kind::Any,
                };
                (kind, 1 + draws.below(MOST_QUESTIONS))
            }
        }
    }
}

/// Which questions a sample takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What shape it is.
    Shape,
    /// What colour it has: whatever else begins with `what`.
    Colour,
    /// Either.
    What,
    /// All.
    Any,
}

impl Kind {
    /// In the order of their declaration, by which [`Passes`] are found.
    const ALL: [Self; 4] = [Self::Shape, Self::Colour, Self::What, Self::Any];

    fn takes(self, question: &Question) -> bool {
        let (shape, what) = (question.is_about_shape(), question.begins_with_what());
        match self {
            Self::Shape => shape,
            Self::Colour => what && !shape,
            Self::What => what || shape,
            Self::Any => true,
        }
    }

    /// The message where no picture has such a question.
    fn missing(self) -> String {
        let what = match self {
            Self::Shape => "answered circle, rectangle or triangle",
            Self::Colour => "that begins with \"what\" and is answered with a colour",
            Self::What | Self::Any => "at all",
        };
        format!("there is no question {what}, which a curriculum needs")
    }
}

/// Endless shuffled passes over the pictures that have questions of a kind.
#[derive(Debug)]
struct Passes {
    pictures: Vec<usize>,
    /// What is left of a pass, as indices into `pictures`.
    left: Vec<usize>,
}

impl Passes {
    fn new(kind: Kind, pictures: &[Picture]) -> Self {
        let has = |picture: &Picture| picture.questions.iter().any(|question| kind.takes(question));
        let pictures = pictures.iter().enumerate().filter(|(_, picture)| has(picture)).map(|(at, _)| at);
        Self { pictures: pictures.collect(), left: Vec::new() }
    }

    /// The next picture; `None` where there are none.
    fn next(&mut self, orders: &mut Permutations) -> Option<usize> {
        if self.left.is_empty() {
            self.left = orders.permutation(self.pictures.len());
        }
        Some(self.pictures[self.left.pop()?])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use tg_llava_core::conversation::Turn;

    use super::*;

    const SAMPLES: usize = 20_000;

    /// Four pictures: one without a question about the shape, one without one about the colour.
    fn pictures() -> Vec<Picture> {
        let ask = |text: &str, answer: &str| Question { text: text.into(), answer: answer.into() };
        let shape = || ask("what is the red shape?", "circle");
        let again = || ask("what shape is present?", "circle");
        let colour = || ask("what color is the circle?", "red");
        let others = || (0..4).map(|n| ask(&format!("is there a {n}?"), "no"));
        let picture = |number, questions: Vec<Question>| Picture {
            number,
            questions: questions.into_iter().chain(others()).collect(),
        };
        vec![
            picture(5, vec![shape(), colour()]),
            picture(6, vec![colour()]),
            picture(7, vec![again()]),
            picture(8, vec![shape(), again(), colour()]),
        ]
    }

    fn made(samples: usize) -> Vec<LlavaSample> {
        let copies = Copies::new(3).unwrap();
        curriculum(&pictures(), copies, NonZeroUsize::new(samples).unwrap()).unwrap()
    }

    /// The questions of a sample, and whether each is about the shape, begins with `what`.
    fn questions(sample: &LlavaSample) -> Vec<(&str, bool, bool)> {
        let turns: Vec<(&str, &str)> = sample
            .conversations
            .chunks(2)
            .map(|turns: &[Turn]| (turns[0].value.as_str(), turns[1].value.as_str()))
            .collect();
        turns
            .into_iter()
            .enumerate()
            .map(|(at, (question, answer))| {
                let text = if at == 0 { question.strip_prefix("<image>\n").unwrap() } else { question };
                (text, answer == "circle", text.starts_with("what"))
            })
            .collect()
    }

    fn share(samples: &[LlavaSample], of: impl Fn(&LlavaSample) -> bool) -> f64 {
        samples.iter().filter(|sample| of(sample)).count() as f64 / samples.len() as f64
    }

    #[test]
    fn shapes_come_first_then_colours_then_everything() {
        let samples = made(SAMPLES);
        assert_eq!(samples.len(), SAMPLES);
        let (shapes, rest) = samples.split_at(SAMPLES / 5);
        let (colours, mixture) = rest.split_at(SAMPLES / 10);
        let one = |sample: &LlavaSample| sample.conversations.len() == 2;
        let only_shape = |sample: &LlavaSample| questions(sample).iter().all(|question| question.1);
        let only_what = |sample: &LlavaSample| questions(sample).iter().all(|question| question.2);
        assert_eq!(share(shapes, |sample| one(sample) && only_shape(sample)), 1.0);
        assert_eq!(share(colours, |sample| one(sample) && only_what(sample)), 1.0);
        // Half of 2,000: standard deviation 0.011.
        assert!((share(colours, only_shape) - 0.5).abs() < 0.05);
        assert!((1..=MOST_QUESTIONS).all(|n| mixture.iter().any(|s| s.conversations.len() == 2 * n)));
        // Two fifths, and what the other three fifths have by chance.
        let what = share(mixture, only_what);
        assert!((0.42..0.60).contains(&what), "{what}");
        let distinct = |sample: &LlavaSample| {
            let questions = questions(sample);
            let texts: HashSet<_> = questions.iter().map(|question| question.0).collect();
            texts.len() == questions.len() && (1..=MOST_QUESTIONS).contains(&texts.len())
        };
        assert_eq!(share(mixture, distinct), 1.0);
    }

    #[test]
    fn the_last_stage_draws_its_kinds_as_often_as_it_says() {
        let mut draws = Draws::for_curriculum();
        let mut counts = [0u32; 4];
        for _ in 0..10_000 {
            counts[Stage::Everything.draw(&mut draws).0 as usize] += 1;
        }
        let expected = [1200, 0, 2800, 6000];
        assert!(counts.iter().zip(expected).all(|(count, n)| count.abs_diff(n) < 250), "{counts:?}");
    }

    #[test]
    fn passes_are_fair_and_copies_random() {
        let samples = made(SAMPLES);
        let mut images: BTreeMap<&str, usize> = BTreeMap::new();
        for sample in &samples[..SAMPLES / 5] {
            *images.entry(&sample.image).or_default() += 1;
        }
        // Three of the pictures have such a question, each with three copies.
        assert_eq!(images.len(), 9);
        assert!(images.values().all(|count| count.abs_diff(SAMPLES / 5 / 9) < 100), "{images:?}");
        let numbers = samples[..3].iter().map(|sample| &sample.image["train/".len()..][..1]);
        assert_eq!(numbers.collect::<HashSet<_>>(), ["5", "7", "8"].into());
        assert!(images.contains_key("train/5.png") && images.contains_key("train/8-c2.png"), "{images:?}");
    }

    #[test]
    fn ids_count_and_any_number_of_samples_works() {
        for samples in [1, 4, 11] {
            let made = made(samples);
            let ids: Vec<_> = made.iter().map(|sample| sample.id.clone()).collect();
            assert_eq!(ids, (0..samples).map(|n| format!("curriculum-{n}")).collect::<Vec<_>>());
        }
        let bytes = |samples| serde_json::to_string(&made(samples)).unwrap();
        assert_eq!(bytes(500), bytes(500));
    }

    #[test]
    fn what_is_missing_is_named() {
        let ask = |text: &str, answer: &str| Picture {
            number: 0,
            questions: vec![Question { text: text.into(), answer: answer.into() }],
        };
        for (picture, expected) in [
            (ask("what color is the shape?", "red"), "no question answered circle"),
            (ask("what shape is present?", "circle"), "no question that begins with \"what\""),
        ] {
            let error = curriculum(&[picture], Copies::ONE, NonZeroUsize::new(100).unwrap()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
