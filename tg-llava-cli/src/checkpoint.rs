//! Which folder is meant.

use std::path::{Path, PathBuf};

use tg_llava_core::weights::{Adapter, has_unfinished_save};

use crate::console::Console;
use crate::failure::Failure;
use crate::hub::{Hub, ModelName};

/// Names the folder of the checkpoint that `chat` takes without `--model`.
pub const WEIGHTS_VARIABLE: &str = "TG_LLAVA_WEIGHTS";

/// The folders of what was asked for.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The checkpoint.
    pub model: PathBuf,
    /// The decoder, a folder or a GGUF file, where one was named.
    pub base: Option<PathBuf>,
}

/// The folders to load: those that `model` and `base` name, paths or names on Hugging Face; without `model`, the checkpoint that
/// ships. Nothing but a name on Hugging Face, and that only where something of it is missing, leads into the network.
///
/// # Errors
/// [`Failure::Input`] where there is no such folder or name, [`Failure::Run`] where it cannot be fetched.
pub fn find(model: Option<&Path>, base: Option<&Path>, console: &Console) -> Result<Folders, Failure> {
    let base = base.map(|base| decoder(base, console)).transpose()?;
    let model = match model {
        Some(model) => named(model, base.is_some(), console)?,
        None => shipped()?,
    };
    Ok(Folders { model, base })
}

/// The folder of one checkpoint; `has_base` as for [`Hub::model`].
///
/// # Errors
/// As [`find`].
pub fn named(asked: &Path, has_base: bool, console: &Console) -> Result<PathBuf, Failure> {
    match ModelName::instead_of(asked) {
        Some(name) => Ok(Hub::of_environment(console).model(&name, has_base)?),
        None => check(asked).map(|()| asked.to_path_buf()),
    }
}

/// The checkpoint that ships.
fn shipped() -> Result<PathBuf, Failure> {
    if let Some(dir) = std::env::var_os(WEIGHTS_VARIABLE).map(PathBuf::from) {
        return shipped_in(&dir)?.ok_or_else(|| {
            Failure::input(format_args!("{WEIGHTS_VARIABLE}={}: there is no checkpoint there", dir.display()))
        });
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("weights")));
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../weights"));
    for place in beside.iter().map(PathBuf::as_path).chain([Path::new("weights"), source]) {
        if let Some(dir) = shipped_in(place)? {
            return Ok(dir);
        }
    }
    Err(Failure::input(format_args!(
        "there is no checkpoint in a folder weights/ (beside the program, here, or in the sources).\n  \
         Name one with --model DIR|OWNER/NAME or {WEIGHTS_VARIABLE}=DIR; README.md says how to get weights"
    )))
}

/// The folder of a decoder, or its GGUF file.
///
/// # Errors
/// As [`find`].
pub fn decoder(asked: &Path, console: &Console) -> Result<PathBuf, Failure> {
    match is_gguf(asked) {
        true => Ok(asked.to_path_buf()),
        false => named(asked, true, console),
    }
}

/// Whether there is a GGUF file of this name.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gguf") && path.is_file()
}

/// Checks that `dir` looks like a checkpoint.
///
/// # Errors
/// [`Failure::Input`] where it does not, with what it looks like instead.
fn check(dir: &Path) -> Result<(), Failure> {
    let name = dir.display();
    if dir.join("config.json").is_file() || Adapter::is_in(dir) {
        return Ok(());
    }
    if dir.is_file() {
        return Err(Failure::input(format_args!("{name}: a file; give the folder that holds config.json")));
    }
    if let (false, Some(folder)) = (dir.is_dir(), ModelName::hidden_by(dir)) {
        return Err(Failure::input(format_args!(
            "{name}: no such folder; it is read as a path since there is ./{} here: for the model on Hugging Face start in \
             another folder, or name the folder that `tg-llava-cli fetch {name}` prints",
            folder.display()
        )));
    }
    if !dir.is_dir() {
        return Err(Failure::input(format_args!(
            "{name}: no such folder; a model on Hugging Face is named OWNER/NAME, weights/README.md says how to get weights"
        )));
    }
    let hint = match checkpoints_in(dir).as_slice() {
        _ if has_unfinished_save(dir) => {
            "; a save into it was interrupted; start the command or run that made it again, which finishes it"
                .into()
        }
        [] => String::new(),
        [only] => format!("; did you mean {}?", only.display()),
        [first, ..] => format!("; did you mean a folder in it, such as {}?", first.display()),
    };
    Err(Failure::input(format_args!(
        "{name}: not a checkpoint: it holds no config.json (beside weights and tokenizer files){hint}"
    )))
}

/// The checkpoint in a folder of shipped weights: the folder itself, or the one folder in it.
fn shipped_in(place: &Path) -> Result<Option<PathBuf>, Failure> {
    if place.join("config.json").is_file() {
        return Ok(Some(place.to_path_buf()));
    }
    let mut found = checkpoints_in(place);
    if found.len() > 1 {
        let names: Vec<_> = found.iter().map(|dir| dir.display().to_string()).collect();
        return Err(Failure::input(format_args!(
            "there are several checkpoints; choose with --model: {}",
            names.join(", ")
        )));
    }
    Ok(found.pop())
}

/// Folders in `dir` that hold a config.json, by name.
fn checkpoints_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.join("config.json").is_file()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(with: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in with {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("config.json"), "{}").unwrap();
        }
        dir
    }

    #[test]
    fn shipped_weights_are_the_folder_or_the_one_in_it() {
        let dir = folder(&[]);
        assert_eq!(shipped_in(dir.path()).unwrap(), None);
        assert_eq!(shipped_in(&dir.path().join("none")).unwrap(), None);
        let dir = folder(&["small"]);
        assert_eq!(shipped_in(dir.path()).unwrap(), Some(dir.path().join("small")));
        let dir = folder(&["", "tower"]);
        assert_eq!(shipped_in(dir.path()).unwrap(), Some(dir.path().join("")));
        let message = shipped_in(folder(&["a", "b"]).path()).unwrap_err().message().unwrap();
        assert!(message.contains("--model"), "{message}");
    }

    #[test]
    fn a_folder_too_high_is_told() {
        let dir = folder(&["small"]);
        let message = check(dir.path()).unwrap_err().message().unwrap();
        assert!(message.ends_with("small?"), "{message}");
        assert!(check(&dir.path().join("small")).is_ok());
    }
}
