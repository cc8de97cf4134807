//! LLaVA's command lines, taken apart as Python's `HfArgumentParser` does.

use super::flags::{self, Meaning};
use strsim::levenshtein;

use crate::config::ConfigError;

/// The flags of a command line, each once; where one was given twice, the last one counts.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    given: Vec<Argument>,
}

/// A flag and what stands behind it.
#[derive(Debug)]
pub(super) struct Argument {
    /// Without dashes.
    pub name: String,
    pub meaning: Meaning,
    pub values: Vec<String>,
}

impl Arguments {
    /// Takes `args` apart; a launcher and the script's name may stand before the flags.
    pub(super) fn parse(args: &[String]) -> Result<Self, ConfigError> {
        let mut arguments = Self::default();
        let mut rest = without_launcher(args)?.iter().peekable();
        while let Some(arg) = rest.next() {
            let Some(flag) = arg.strip_prefix("--").filter(|flag| !flag.is_empty()) else {
                return Err(fault(arg, "expected a flag such as --data_path"));
            };
            let (flag, attached) = match flag.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (flag, None),
            };
            let mut values = Vec::from_iter(attached);
            if values.is_empty() {
                while let Some(value) = rest.next_if(|next| !next.starts_with("--")) {
                    values.push(value.clone());
                }
            }
            arguments.add(&flag.replace('-', "_"), values)?;
        }
        Ok(arguments)
    }

    fn add(&mut self, flag: &str, mut values: Vec<String>) -> Result<(), ConfigError> {
        let mut name = flag;
        let mut meaning = flags::meaning(name);
        if meaning.is_none()
            && let Some(positive) = flag.strip_prefix("no_")
            && values.is_empty()
        {
            (name, meaning) = (positive, flags::meaning(positive));
            values.push("False".into());
        }
        let Some(meaning) = meaning else { return Err(unknown(flag)) };
        let argument = Argument { name: name.into(), meaning, values };
        argument.check_count()?;
        self.given.retain(|earlier| earlier.name != name);
        self.given.push(argument);
        Ok(())
    }

    /// All flags, in the order given.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Argument> {
        self.given.iter()
    }

    /// The flag of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Argument> {
        self.given.iter().find(|argument| argument.name == name)
    }

    /// Whether the flag was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The flag's value.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(Argument::value)
    }

    /// The flag as a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        self.get(name).map(Argument::number).transpose()
    }

    /// The flag as yes or no.
    pub(super) fn switch(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.get(name).map(Argument::switch).transpose()
    }
}

impl Argument {
    fn check_count(&self) -> Result<(), ConfigError> {
        let (fewest, most) = match self.meaning {
            Meaning::Text(_) | Meaning::Number(_) | Meaning::Value => (1, 1),
            Meaning::Switch(_) | Meaning::Choice => (0, 1),
            Meaning::Ignored(_) | Meaning::Moot | Meaning::Only(..) => (0, usize::MAX),
        };
        if self.values.len() < fewest {
            return Err(self.fault("needs a value"));
        }
        if self.values.len() > most {
            return Err(self.fault(format!("takes one value, found {}", self.values.join(" "))));
        }
        Ok(())
    }

    /// The value; a flag alone means yes.
    pub(super) fn value(&self) -> &str {
        self.values.first().map_or("True", String::as_str)
    }

    /// The value as a number, written as in Python.
    pub(super) fn number(&self) -> Result<f64, ConfigError> {
        let text = self.value();
        text.parse().map_err(|_| self.fault(format!("expected a number, found {text:?}")))
    }

    /// The value as a whole number of at least 1; `None` for less, which stands for none in the HF Trainer.
    pub(super) fn count(&self) -> Result<Option<i64>, ConfigError> {
        let number = self.number()?;
        if number.fract() != 0.0 || number.abs() > 9e15 {
            return Err(self.fault(format!("expected a whole number, found {}", self.value())));
        }
        Ok((number >= 1.0).then_some(number as i64))
    }

    /// The value as yes or no.
    pub(super) fn switch(&self) -> Result<bool, ConfigError> {
        as_switch(self.value())
            .ok_or_else(|| self.fault(format!("expected True or False, found {:?}", self.value())))
    }

    /// Whether the value turns the flag off.
    pub(super) fn is_off(&self) -> bool {
        let text = self.value();
        as_switch(text) == Some(false) || text.is_empty() || text.eq_ignore_ascii_case("none")
    }

    /// Whether the value is, but for its spelling, one of `allowed`.
    pub(super) fn is_one_of(&self, allowed: &[&str]) -> bool {
        let text = self.value();
        let alike = |other: &str| {
            let (numbers, switches) =
                ((text.parse::<f64>(), other.parse::<f64>()), (as_switch(text), as_switch(other)));
            text.eq_ignore_ascii_case(other)
                || matches!(numbers, (Ok(a), Ok(b)) if a == b)
                || matches!(switches, (Some(a), Some(b)) if a == b)
        };
        allowed.iter().any(|other| alike(other))
    }

    /// An error about this flag.
    pub(super) fn fault(&self, message: impl Into<String>) -> ConfigError {
        fault(&format!("--{}", self.name), message)
    }
}

fn as_switch(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// What follows the script, where `args` begin with one or with the launcher in front of it.
fn without_launcher(args: &[String]) -> Result<&[String], ConfigError> {
    let Some(first) = args.first() else { return Ok(args) };
    let is_script = |arg: &String| arg.ends_with(".py") && !arg.starts_with('-');
    let program = first.rsplit('/').next().unwrap_or(first);
    let launcher =
        program.starts_with("python") || ["deepspeed", "torchrun", "accelerate"].contains(&program);
    if is_script(first) {
        return Ok(&args[1..]);
    }
    if !launcher {
        return Ok(args);
    }
    match args.iter().position(is_script) {
        Some(script) => Ok(&args[script + 1..]),
        None => {
            Err(fault(first, "expected the script's name (llava/train/train_mem.py) behind the launcher"))
        }
    }
}

fn unknown(flag: &str) -> ConfigError {
    let nearest = flags::names().map(|name| (levenshtein(flag, name), name)).min();
    let message = match nearest {
        Some((apart, name)) if apart <= flag.len().div_ceil(4) => {
            format!("LLaVA's training scripts have no such flag; did you mean --{name}?")
        }
        _ => "LLaVA's training scripts have no such flag".into(),
    };
    fault(&format!("--{flag}"), message)
}

fn fault(flag: &str, message: impl Into<String>) -> ConfigError {
    ConfigError::Flag { flag: flag.into(), message: message.into() }
}
