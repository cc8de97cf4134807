//! `fetch`: models from Hugging Face, ahead of their use.

use clap::Args;
use serde_json::json;

use crate::args::OutputArgs;
use crate::console::{Console, print, print_json};
use crate::failure::Failure;
use crate::hub::{Hub, ModelName, SHORT_NAMES};

/// Arguments of `fetch`.
#[derive(Debug, Args)]
#[command(after_help = help())]
pub struct FetchArgs {
    /// Model: OWNER/NAME or OWNER/NAME@REVISION as on Hugging Face, or one of the short names below
    #[arg(value_name = "NAME", required = true, value_parser = ModelName::read_short)]
    pub names: Vec<ModelName>,
    /// Branch, tag or commit, for those that name none themselves [default: main]
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn help() -> String {
    let names = SHORT_NAMES.iter().map(|(short, name)| format!("\n  {short:<18} {name}"));
    format!(
        "Short names:{}\n\nTowers and decoders that a model names come with it. What is there already is not fetched again. \
         Files go where Hugging Face's Python tools keep them: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub. HF_TOKEN, or \
         the login of `hf auth login`, opens models behind a licence form; HF_ENDPOINT names a mirror.",
        names.collect::<String>()
    )
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where there is no such model, or it may not be had; [`Failure::Run`] where the network fails.
pub fn run(args: &FetchArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let hub = Hub::of_environment(&console);
    let mut all = Vec::new();
    for name in &args.names {
        let revision = name.revision.clone().or_else(|| args.revision.clone());
        let name: ModelName = match revision {
            Some(revision) => format!("{}@{revision}", name.name).parse().map_err(Failure::input)?,
            None => name.clone(),
        };
        let fetched = hub.fetch(&name)?;
        if console.json {
            all.push(json!({ "model": name.name, "revision": name.revision(), "commit": fetched.commit, "folder": fetched.folder }));
        } else {
            print(&format!("{}\n", fetched.folder.display()))?;
        }
    }
    if console.json { print_json(&all, true) } else { Ok(()) }
}
