//! What a line of a conversation means.

use std::path::PathBuf;

use crate::picture::PictureSource;

/// A line of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Nothing but white space.
    Blank,
    /// A question for the model.
    Question(String),
    /// `/image PATH|URL`
    Image(PictureSource),
    /// `/reset`
    Reset,
    /// `/save FILE`, or `/save! FILE`
    Save {
        /// Where to.
        file: PathBuf,
        /// Whether a file that is there already is replaced.
        replace: bool,
    },
    /// `/help`
    Help,
    /// `/quit`
    Quit,
}

/// What `/help` prints.
pub const HELP: &str = "\
/image PATH|URL  show a picture with the next question
/reset           forget the conversation and its pictures
/save FILE       write the turns as JSON; /save! FILE replaces a file that is there
/help            this list
/quit            end (also Ctrl-D)
//...             a question that begins with a slash
Ctrl-C stops an answer.";

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// A text for the user where a command is unknown or lacks what it needs.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Self::Blank);
        }
        let Some(command) = line.strip_prefix('/') else { return Ok(Self::Question(line.into())) };
        if command.starts_with('/') {
            return Ok(Self::Question(command.into()));
        }
        let (name, argument) = match command.split_once(char::is_whitespace) {
            Some((name, argument)) => (name, unquote(argument.trim())),
            None => (command, ""),
        };
        match (name, argument.is_empty()) {
            ("image", false) => Ok(Self::Image(match PictureSource::parse(argument)? {
                PictureSource::File(_) => PictureSource::File(expand_home(argument)),
                web => web,
            })),
            ("image", true) => Err("/image needs a file or an address: /image PATH|URL".into()),
            ("save" | "save!", false) => {
                Ok(Self::Save { file: expand_home(argument), replace: name == "save!" })
            }
            ("save" | "save!", true) => Err("/save needs a file: /save FILE".into()),
            ("reset", true) => Ok(Self::Reset),
            ("help", true) => Ok(Self::Help),
            ("quit" | "exit", true) => Ok(Self::Quit),
            ("reset" | "help" | "quit" | "exit", false) => Err(format!("/{name} takes nothing behind it")),
            _ => Err(format!(
                "there is no command /{name}; /help lists them, and // begins a question with a slash"
            )),
        }
    }
}

/// Without one pair of quotes around it, as dragging a file into a terminal puts them.
fn unquote(text: &str) -> &str {
    let inside = |quote| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(text)
}

/// `~/` is the home folder, as in a shell.
fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_questions() {
        let file = |path: &str| Line::Image(PictureSource::File(path.into()));
        for (text, line) in [
            ("  \t ", Line::Blank),
            (" What is this? ", Line::Question("What is this?".into())),
            ("//etc is what?", Line::Question("/etc is what?".into())),
            ("/image  my photo.png ", file("my photo.png")),
            ("/image 'my photo.png'", file("my photo.png")),
            ("/image https://a/b", Line::Image(PictureSource::Web("https://a/b".into()))),
            ("/save \"a b.json\"", Line::Save { file: "a b.json".into(), replace: false }),
            ("/save! a.json", Line::Save { file: "a.json".into(), replace: true }),
            ("/reset", Line::Reset),
            ("/quit", Line::Quit),
        ] {
            assert_eq!(Line::parse(text).as_ref(), Ok(&line), "{text}");
        }
        for text in ["/image", "/image  ", "/save", "/reset now", "/images a", "/", "/image ftp://a/b"] {
            assert!(Line::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_home_folder_is_found() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(expand_home("~/a.png"), home.join("a.png"));
        assert_eq!(expand_home("~a.png"), PathBuf::from("~a.png"));
    }
}
