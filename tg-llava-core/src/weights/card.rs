//! What a checkpoint that was written anew says of where it comes from: a section of its model card.

use std::collections::BTreeMap;
use std::path::Path;

use super::QuantisedTensor;
use crate::config::{LoraConfig, folder_name, hub_name_of, is_hub_name};
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
pub(super) fn write(about: &Provenance<'_>, to: &Path) -> Result<()> {
    let old = about.source.join(CARD);
    let mut text = match old.is_file() {
        true => std::fs::read_to_string(&old).map_err(|e| Error::io(&old, e))?,
        false => heading(about),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text += &section(about);
    let path = to.join(CARD);
    std::fs::write(&path, text).map_err(|e| Error::io(&path, e))
}

/// The start of a new card, with the model on Hugging Face that it builds on.
fn heading(about: &Provenance<'_>) -> String {
    let relation = match (about.quantised.is_empty(), about.merged) {
        (false, _) => "base_model_relation: quantized\n",
        (true, 0) => "",
        (true, _) => "base_model_relation: merge\n",
    };
    let matter = model_on_hub(about).map(|id| format!("---\nbase_model: {id}\n{relation}---\n\n"));
    format!("{}# {}\n", matter.unwrap_or_default(), title(about.source))
}

/// The source itself, or else the decoder that its adapter lies over. What config.json calls `_name_or_path` is no answer: in a
/// fine-tuned model it is often the model that the training began with.
fn model_on_hub(about: &Provenance<'_>) -> Option<String> {
    let base = || {
        let named = || LoraConfig::read(about.source).ok()?.base.filter(|name| is_hub_name(name));
        about.base.and_then(hub_name_of).or_else(named)
    };
    hub_name_of(about.source).or_else(|| if about.merged > 0 { base() } else { None })
}

fn section(about: &Provenance<'_>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut out =
        format!("\n## Conversion\n\nWritten by TG-LLaVA {version} from `{}`.\n\n", title(about.source));
    if let Some(base) = about.base {
        out += &format!("- decoder: `{}`\n", title(base));
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

/// What a folder is called: where it was on somebody's disk concerns nobody.
fn title(path: &Path) -> String {
    let path = match hub_name_of(path) {
        Some(_) => path.to_path_buf(),
        None => path.canonicalize().unwrap_or_else(|_| path.to_path_buf()),
    };
    Some(folder_name(&path)).filter(|name| !name.is_empty()).unwrap_or_else(|| "a checkpoint".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_card_names_what_it_was_made_of_on_the_hub() {
        let cache = Path::new("/cache/models--owner--tuned/snapshots/abc");
        let local = tempfile::tempdir().unwrap();
        // What a fine-tuned model began with is not what it is.
        std::fs::write(local.path().join("config.json"), r#"{"_name_or_path": "owner/base"}"#).unwrap();
        let base = Path::new("/cache/models--owner--base/snapshots/abc");
        let nf4 = [QuantisedTensor { key: "a".into(), asked: None, format: "nf4", bytes: 0 }];
        let about = |source, merged, quantised| {
            heading(&Provenance { source, base: Some(base), merged, quantised, floats: "float16" })
        };
        assert_eq!(
            about(cache, 0, &nf4),
            "---\nbase_model: owner/tuned\nbase_model_relation: quantized\n---\n\n# tuned\n"
        );
        assert_eq!(about(cache, 0, &[]), "---\nbase_model: owner/tuned\n---\n\n# tuned\n");
        let name = local.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(about(local.path(), 0, &nf4), format!("# {name}\n"));
        assert_eq!(
            about(local.path(), 2, &[]),
            format!("---\nbase_model: owner/base\nbase_model_relation: merge\n---\n\n# {name}\n")
        );
    }

    #[test]
    fn an_old_card_is_continued() {
        let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        std::fs::write(from.path().join(CARD), "---\nlicense: mit\n---\nA model.").unwrap();
        let about =
            Provenance { source: from.path(), base: None, merged: 0, quantised: &[], floats: "float16" };
        write(&about, to.path()).unwrap();
        let text = std::fs::read_to_string(to.path().join(CARD)).unwrap();
        assert!(text.starts_with("---\nlicense: mit\n---\nA model.\n\n## Conversion\n"), "{text}");
        assert!(text.ends_with("- all else is float16\n"), "{text}");
    }
}
