//! What a checkpoint that was written anew says of where it comes from: a section of its model card.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::QuantisedTensor;
use crate::error::{Error, Result};

/// The model card's file.
const CARD: &str = "README.md";

/// What a checkpoint was made of, and what became of it.
pub(super) struct Provenance<'a> {
    /// The folder.
    pub source: &'a Path,
    /// The decoder, where it was apart.
    pub base: Option<&'a Path>,
    /// Matrices that an adapter was added to.
    pub merged: usize,
    /// Matrices that are quantised.
    pub quantised: &'a [QuantisedTensor],
    /// What the others are.
    pub floats: &'a str,
}

/// Writes the card into `to`: the source's, where it has one, and a section about the conversion.
pub(super) fn write(about: &Provenance<'_>, config: Option<&Value>, to: &Path) -> Result<()> {
    let old = about.source.join(CARD);
    let mut text = match old.is_file() {
        true => std::fs::read_to_string(&old).map_err(|e| Error::io(&old, e))?,
        false => heading(about, config),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text += &section(about);
    let path = to.join(CARD);
    std::fs::write(&path, text).map_err(|e| Error::io(&path, e))
}

/// The start of a new card; the model that it builds on is named for the hub where config.json knows it.
fn heading(about: &Provenance<'_>, config: Option<&Value>) -> String {
    let name = config.and_then(|config| config.get("_name_or_path")).and_then(Value::as_str);
    let id = name.filter(|name| is_hub_id(name));
    let relation = if about.quantised.is_empty() { "merge" } else { "quantized" };
    let matter = id.map(|id| format!("---\nbase_model: {id}\nbase_model_relation: {relation}\n---\n\n"));
    format!("{}# {}\n", matter.unwrap_or_default(), file_name(about.source))
}

/// `owner/name`, and no path.
fn is_hub_id(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

fn section(about: &Provenance<'_>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut out =
        format!("\n## Conversion\n\nWritten by TG-LLaVA {version} from `{}`.\n\n", file_name(about.source));
    if let Some(base) = about.base {
        out += &format!("- decoder: `{}`\n", file_name(base));
    }
    if about.merged > 0 {
        out += &format!("- an adapter is merged into {} matrices\n", about.merged);
    }
    let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in about.quantised {
        *formats.entry(tensor.format).or_default() += 1;
    }
    for (format, count) in formats {
        out += &format!("- {count} matrices of the decoder are {format}\n");
    }
    out += &format!("- all else is {}\n", about.floats);
    out
}

/// The last part of a path: where it was on somebody's disk concerns nobody.
fn file_name(path: &Path) -> String {
    let real = path.canonicalize();
    let path = real.as_deref().unwrap_or(path);
    path.file_name().map_or_else(|| "a checkpoint".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_no_names_of_the_hub() {
        for (name, is) in [
            ("lmsys/vicuna-7b-v1.5", true),
            ("./vicuna", false),
            ("/data/vicuna", false),
            ("vicuna", false),
            ("a/b/c", false),
            ("../a/b", false),
        ] {
            assert_eq!(is_hub_id(name), is, "{name}");
        }
    }

    #[test]
    fn an_old_card_is_continued() {
        let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        std::fs::write(from.path().join(CARD), "---\nlicense: mit\n---\nA model.").unwrap();
        let about =
            Provenance { source: from.path(), base: None, merged: 0, quantised: &[], floats: "float16" };
        write(&about, None, to.path()).unwrap();
        let text = std::fs::read_to_string(to.path().join(CARD)).unwrap();
        assert!(text.starts_with("---\nlicense: mit\n---\nA model.\n\n## Conversion\n"), "{text}");
        assert!(text.ends_with("- all else is float16\n"), "{text}");
    }
}
