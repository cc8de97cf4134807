//! Why a command ended without success, and what the shell is told.

use std::io;

use anyhow::Error;
use tg_llava_core::preprocess::ImageError;

/// The exit code of a rank that ended because of another one (EX_TEMPFAIL: to try again may help).
pub const ELSEWHERE: u8 = 75;

/// Why a command ended without success.
#[derive(Debug)]
pub enum Failure {
    /// What the user gave cannot be used: exit code 2.
    Input(Error),
    /// The run itself failed: exit code 1.
    Run(Error),
    /// Another rank of the run failed, or could not be reached: exit code 75.
    Elsewhere(Error),
    /// A check found something, which is printed already: exit code 1.
    Check,
    /// Ctrl-C: exit code 130, as shells have it.
    Interrupted,
    /// Whoever read our output has closed it, as `head` does: no error, exit code 0.
    ClosedOutput,
}

impl Failure {
    /// A mistake in what the user gave.
    pub fn input(message: impl std::fmt::Display) -> Self {
        Self::Input(Error::msg(message.to_string()))
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) => 2,
            Self::Run(_) | Self::Check => 1,
            Self::Elsewhere(_) => ELSEWHERE,
            Self::Interrupted => 130,
            Self::ClosedOutput => 0,
        }
    }

    /// What to tell the user, where there is anything left to say.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Input(error) | Self::Run(error) | Self::Elsewhere(error) => Some(chain(error)),
            Self::Check | Self::Interrupted | Self::ClosedOutput => None,
        }
    }
}

/// An error and its causes in one text, without those that another message says already.
pub(crate) fn chain(error: &Error) -> String {
    let mut out = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !out.contains(&cause) {
            out += ": ";
            out += &cause;
        }
    }
    out
}

impl From<tg_llava_core::Error> for Failure {
    fn from(error: tg_llava_core::Error) -> Self {
        match error {
            tg_llava_core::Error::Image(error) => error.into(),
            other => Self::Input(other.into()),
        }
    }
}

impl From<ImageError> for Failure {
    /// The library's options go by their flags' names here.
    fn from(error: ImageError) -> Self {
        let message = chain(&error.into());
        let message = message.replace("`max_bytes`", "--max-image-bytes");
        Self::input(message.replace("`max_pixels`", "--max-image-pixels"))
    }
}

impl From<io::Error> for Failure {
    /// For writing to stdout; other I/O names its file and becomes a [`Failure::Input`] or [`Failure::Run`].
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedOutput,
            _ => Self::Run(Error::new(error).context("standard output cannot be written")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error = Error::msg("disk full").context("a.json: disk full").context("saving failed");
        assert_eq!(Failure::Run(error).message().unwrap(), "saving failed: a.json: disk full");
    }

    #[test]
    fn limits_are_called_by_their_flags() {
        let error = ImageError::TooManyBytes { name: "a.png".into(), bytes: 9, limit: 8 };
        let message = Failure::from(error).message().unwrap();
        assert!(message.contains("raise --max-image-bytes"), "{message}");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit_code(), failure.message()), (0, None));
    }
}
