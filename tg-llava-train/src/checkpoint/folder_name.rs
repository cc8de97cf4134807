/// A name that this module gives to folders of an `output_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FolderName {
    /// A checkpoint of a step.
    Checkpoint(usize),
    /// A folder on its way in or out, by the step and the process that works on it.
    Temporary { purpose: Purpose, step: usize, process: u32 },
}

/// Why a folder has a temporary name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is being written.
    Unfinished,
    /// It makes room for another save of its step, and goes back if that does not arrive.
    Replaced,
    /// It is being deleted.
    Removed,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Unfinished, Self::Replaced, Self::Removed];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Unfinished => "tmp-checkpoint-",
            Self::Replaced => "tmp-replaced-",
            Self::Removed => "tmp-removed-",
        }
    }
}

impl FolderName {
    /// A temporary name for this process.
    pub(super) fn temporary(purpose: Purpose, step: usize) -> Self {
        Self::Temporary { purpose, step, process: std::process::id() }
    }

    /// The meaning of a name, if it is one of ours to the letter.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let parsed = match name.strip_prefix("checkpoint-") {
            Some(step) => Self::Checkpoint(step.parse().ok()?),
            None => Purpose::ALL.into_iter().find_map(|purpose| {
                let (step, process) = name.strip_prefix(purpose.prefix())?.split_once('-')?;
                Some(Self::Temporary { purpose, step: step.parse().ok()?, process: process.parse().ok()? })
            })?,
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl std::fmt::Display for FolderName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Checkpoint(step) => write!(f, "checkpoint-{step}"),
            Self::Temporary { purpose, step, process } => write!(f, "{}{step}-{process}", purpose.prefix()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_to_the_letter() {
        for purpose in Purpose::ALL {
            let name = FolderName::temporary(purpose, 30);
            assert_eq!(FolderName::parse(&name.to_string()), Some(name));
        }
        assert_eq!(FolderName::parse("checkpoint-0"), Some(FolderName::Checkpoint(0)));
        let foreign = [
            "checkpoint-",
            "checkpoint-07",
            "checkpoint-+7",
            "checkpoint-7b",
            "tmp-checkpoint-7",
            "tmp-x-7-1",
        ];
        assert!(foreign.iter().all(|name| FolderName::parse(name).is_none()));
    }
}
