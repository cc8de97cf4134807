//! The contents of a folder as text for people.

use std::collections::BTreeMap;

use tg_llava_core::weights::Component;

use super::contents::{Contents, Kind, Size};
use crate::progress::{short_bytes, short_count};

/// How many keys of a kind are listed before the rest is counted.
const SHOWN: usize = 12;

/// The whole text; `verbose` lists every tensor and every key.
pub fn text(contents: &Contents, verbose: bool) -> String {
    let mut out = format!("{}: {}\n", contents.folder.display(), contents.kind.title());
    for (what, value) in &contents.description {
        out += &format!("  {what:16}  {value}\n");
    }
    out += &sizes(contents);
    out += &files(contents);
    if verbose {
        out += &tensors(contents);
    }
    out += &verdict(contents, verbose);
    out
}

fn sizes(contents: &Contents) -> String {
    let mut out =
        format!("\n  {:16}  {:>7}  {:>10}  {:>12}  dtype\n", "part", "tensors", "parameters", "bytes");
    let mut row = |name: &str, size: &Size| {
        let dtypes: Vec<_> = size.dtypes.keys().map(String::as_str).collect();
        let bits = if size.quantised { format!(" ({:.2} bits a value)", size.bits()) } else { String::new() };
        out += &format!(
            "  {name:16}  {:>7}  {:>10}  {:>12}  {}{bits}\n",
            size.tensors,
            short_count(size.parameters),
            short_bytes(size.bytes),
            dtypes.join(", ")
        );
    };
    let mut total = Size::default();
    for (part, size) in &contents.parts {
        row(part.title(), size);
        total.merge(size);
    }
    row("all", &total);
    if total.quantised {
        let [half, single] = [2, 4].map(|bytes| short_bytes(bytes * total.parameters));
        out += &format!("  in memory as floats: {half} in f16 or bf16, {single} in f32\n");
    }
    out
}

fn files(contents: &Contents) -> String {
    let mut out = format!("\n  {:>7}  {:>12}  file\n", "tensors", "bytes");
    for file in &contents.files {
        out += &format!("  {:>7}  {:>12}  {}\n", file.tensors, short_bytes(file.bytes), file.file.display());
    }
    out
}

fn tensors(contents: &Contents) -> String {
    let width = contents.tensors.iter().map(|tensor| tensor.key.len()).max().unwrap_or(0);
    let mut out = String::from("\n");
    for tensor in &contents.tensors {
        let shape = format!("{:?}", tensor.shape);
        let line = format!(
            "  {:width$}  {:>4}  {shape:16}  {}",
            tensor.key,
            tensor.dtype,
            if tensor.used { "" } else { "not used" }
        );
        out += line.trim_end();
        out.push('\n');
    }
    out
}

fn verdict(contents: &Contents, verbose: bool) -> String {
    let mut out = String::from("\n");
    if !contents.unused.is_empty() {
        out += &format!(
            "  {} tensors are skipped on loading: the model never uses them{}\n",
            contents.unused.len(),
            if verbose { "" } else { " (-v lists them)" }
        );
    }
    let lists: [(&str, Vec<String>); 4] = [
        ("missing", missing(contents, verbose)),
        (
            "unknown",
            contents.unknown.iter().map(|k| format!("{} (in {})", k.key, k.file.display())).collect(),
        ),
        (
            "wrong shape",
            contents
                .misshapen
                .iter()
                .map(|m| format!("{}: {:?}, but {:?} by config.json", m.key, m.found, m.expected))
                .collect(),
        ),
        ("wrong dtype", contents.not_float.clone()),
    ];
    for (what, keys) in lists.iter().filter(|(_, keys)| !keys.is_empty()) {
        let shown = if verbose { keys.len() } else { SHOWN };
        out += &format!("  {what}:\n");
        for key in keys.iter().take(shown) {
            out += &format!("    {key}\n");
        }
        if keys.len() > shown {
            out += &format!("    ... and {} more (-v lists them)\n", keys.len() - shown);
        }
    }
    for problem in &contents.problems {
        out += &format!("  {problem}\n");
    }
    out += match (contents.complete, contents.kind) {
        (true, Kind::Tower) => "  readable; its keys are checked as part of the checkpoint that names it\n",
        (true, Kind::Stage1WithoutBase | Kind::AdapterWithoutBase) => {
            "  complete, but for the decoder and the towers\n"
        }
        (true, Kind::Gguf) => "  complete: all that its metadata asks for is there\n",
        (true, _) => "  complete: all that config.json asks for is there\n",
        (false, _) => "  NOT complete\n",
    };
    out
}

/// Missing keys; a part that is missing as a whole is one line.
fn missing(contents: &Contents, verbose: bool) -> Vec<String> {
    let mut by_part: BTreeMap<Component, Vec<&String>> = BTreeMap::new();
    for key in &contents.missing {
        by_part.entry(Component::of_key(key).unwrap_or(Component::Llm)).or_default().push(key);
    }
    let mut out = Vec::new();
    for (part, keys) in by_part {
        let whole = keys.len() > 1 && !contents.parts.contains_key(&part);
        if whole && !verbose {
            out.push(format!("the whole {} ({} tensors, first {})", part.title(), keys.len(), keys[0]));
        } else {
            out.extend(keys.into_iter().cloned());
        }
    }
    out
}
