//! How often something happens in a run.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};

/// The distance between two events, in optimizer steps; the end of the run is always one of them.
///
/// In TOML a whole number is a count, a number in `(0, 1)` a share, and 0 stands for [`Steps::Never`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Steps {
    /// Not before the end.
    Never,
    /// This many steps.
    Count(usize),
    /// This share of all steps, in `(0, 1)`.
    Share(f64),
}

impl Steps {
    /// The distance in a run of `total_steps`, a share rounded up as the HF Trainer does; `None` for the end alone.
    pub fn every(self, total_steps: usize) -> Option<usize> {
        match self {
            Self::Never => None,
            Self::Count(count) => Some(count),
            Self::Share(share) => Some(((total_steps as f64 * share).ceil() as usize).max(1)),
        }
    }

    /// Whether the event happens after optimizer step `done` (from 1) of `total_steps`.
    pub fn is_due(self, done: usize, total_steps: usize) -> bool {
        done == total_steps || self.every(total_steps).is_some_and(|every| done.is_multiple_of(every))
    }

    /// From a number, or `None` where it is neither whole nor in `(0, 1)`.
    pub fn from_number(number: f64) -> Option<Self> {
        if number > 0.0 && number < 1.0 {
            return Some(Self::Share(number));
        }
        // Whole numbers beyond this are not all floats.
        let whole = number.fract() == 0.0 && (0.0..=9e15).contains(&number);
        whole.then_some(if number == 0.0 { Self::Never } else { Self::Count(number as usize) })
    }
}

impl Serialize for Steps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Never => serializer.serialize_u64(0),
            Self::Count(count) => serializer.serialize_u64(count as u64),
            Self::Share(share) => serializer.serialize_f64(share),
        }
    }
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StepsVisitor;
        impl Visitor<'_> for StepsVisitor {
            type Value = Steps;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of steps, a share of the run in (0, 1), or 0 for the end alone")
            }

            fn visit_i64<E: Error>(self, count: i64) -> Result<Steps, E> {
                match usize::try_from(count) {
                    Ok(0) => Ok(Steps::Never),
                    Ok(count) => Ok(Steps::Count(count)),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(count), &self)),
                }
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Steps, E> {
                Steps::from_number(number).ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }
        }
        deserializer.deserialize_any(StepsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_become_counts_and_shares() {
        assert_eq!(Steps::from_number(0.5), Some(Steps::Share(0.5)));
        assert_eq!(Steps::from_number(1.0), Some(Steps::Count(1)));
        assert_eq!(Steps::from_number(50_000.0), Some(Steps::Count(50_000)));
        assert_eq!(Steps::from_number(0.0), Some(Steps::Never));
        for bad in [-1.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert_eq!(Steps::from_number(bad), None, "{bad}");
        }
    }

    #[test]
    fn half_a_run_is_rounded_up() {
        assert_eq!(Steps::Share(0.5).every(5197), Some(2599));
        assert_eq!(Steps::Share(0.001).every(10), Some(1));
        assert_eq!(Steps::Count(500).every(10), Some(500));
        let due = |steps: Steps| (1..=5).filter(|&done| steps.is_due(done, 5)).collect::<Vec<_>>();
        assert_eq!(due(Steps::Share(0.5)), [3, 5]);
        assert_eq!(due(Steps::Count(2)), [2, 4, 5]);
        assert_eq!(due(Steps::Never), [5]);
    }

    proptest! {
        #[test]
        fn the_last_step_is_always_due(
            number in prop_oneof![0.0f64..1.0, (0u32..20).prop_map(f64::from)],
            total in 1usize..200,
        ) {
            let steps = Steps::from_number(number).unwrap();
            prop_assert!(steps.is_due(total, total));
            prop_assert!(steps.every(total) != Some(0));
        }
    }
}
