//! `serve`: the options of the HTTP server.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tg_llava_core::assistant::AssistantOptions;
use tg_llava_core::config::{folder_name, hub_name_of};
use tg_llava_core::generate::EngineOptions;
use tracing_subscriber::filter::LevelFilter;

use super::chat::template_name;
use crate::args::{GuideArgs, OutputArgs, PictureArgs, at_least_one};
use crate::checkpoint::{self, Folders};
use crate::console::Console;
use crate::device::ComputeArgs;
use crate::failure::Failure;
use crate::quantised::QuantizeArgs;
use crate::serve::{
    self, ConnectionLimits, Cors, Hosts, Keys, LogFormat, Media, ModelLimits, PictureLimits, Settings,
};

/// Holds API keys, separated by blanks, so that they stand on no command line.
const KEY_VARIABLE: &str = "TG_LLAVA_API_KEY";

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct ServeArgs {
    /// Checkpoint: a folder, or a model on Hugging Face, OWNER/NAME(@REVISION) [default: the one in weights/]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// The decoder, named like --model, or a GGUF file: where --model holds none (stage-1 files, an adapter), or in the place of its own
    #[arg(long, value_name = "MODEL|FILE")]
    pub base: Option<PathBuf>,
    /// Conversation template, for example vicuna_v1 [default: as the checkpoint says]
    #[arg(long, value_name = "NAME", value_parser = template_name)]
    pub template: Option<String>,
    /// What the model is called by clients, beside `default` [default: the checkpoint's own name]
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// An adapter over --model under a name of its own, by which requests ask for it; may be repeated
    #[arg(long = "adapter", value_name = "NAME=DIR", value_parser = named_folder)]
    pub adapters: Vec<(String, PathBuf)>,
    /// Address to listen on; 0.0.0.0 for all of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Access")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one, and the address is printed
    #[arg(long, value_name = "N", default_value_t = 8000, help_heading = "Access")]
    pub port: u16,
    /// Key that clients must send; may be repeated, and others see it in the list of processes [env: TG_LLAVA_API_KEY]
    #[arg(long = "api-key", value_name = "KEY", help_heading = "Access")]
    pub api_keys: Vec<String>,
    /// File of such keys, one a line
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub api_key_file: Option<PathBuf>,
    /// Site whose pages may ask, such as http://localhost:3000, or *; may be repeated [default: none but this server's own]
    #[arg(long = "cors-origin", value_name = "ORIGIN", help_heading = "Access")]
    pub cors_origins: Vec<String>,
    /// Host that pictures may be fetched from by http(s), or * for all public ones; may be repeated [default: none]
    #[arg(long, value_name = "HOST", value_delimiter = ',', help_heading = "Pictures")]
    pub media_hosts: Vec<String>,
    /// Folder that pictures may be read from by file:// [default: none]
    #[arg(long, value_name = "DIR", help_heading = "Pictures")]
    pub media_path: Option<PathBuf>,
    /// Most pictures of a request
    #[arg(long, value_name = "N", default_value_t = 8, help_heading = "Pictures")]
    pub max_images: usize,
    /// Refuse pictures of more pixels than this
    #[arg(long, value_name = "N", default_value_t = 50_000_000, help_heading = "Pictures")]
    pub max_image_pixels: u64,
    /// Refuse pictures of more bytes than this
    #[arg(long, value_name = "N", default_value_t = 20 << 20, help_heading = "Pictures")]
    pub max_image_bytes: u64,
    /// Turn pictures as their EXIF orientation says (the reference does not)
    #[arg(long, help_heading = "Pictures")]
    pub apply_exif: bool,
    /// Most answers that are generated at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one, help_heading = "Limits")]
    pub max_running: usize,
    /// Most requests that wait besides; others are told to come back (429)
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Limits")]
    pub queue: usize,
    /// Most bytes of a request
    #[arg(long, value_name = "N", default_value_t = 20 << 20, value_parser = clap::value_parser!(u32), help_heading = "Limits")]
    pub max_body_bytes: u32,
    /// Most bytes of keys and values of all answers under way [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub kv_cache_bytes: Option<u64>,
    /// Most bytes of what was seen in pictures, for those that come again
    #[arg(long, value_name = "N", default_value_t = 256 << 20, help_heading = "Limits")]
    pub picture_cache_bytes: u64,
    /// Longest that a request may take, in seconds
    #[arg(long, value_name = "N", default_value_t = 600, help_heading = "Limits")]
    pub request_timeout: u32,
    /// Longest that requests may go on after Ctrl-C or SIGTERM, in seconds
    #[arg(long, value_name = "N", default_value_t = 30, help_heading = "Limits")]
    pub grace: u32,
    /// Longest that a client may take to send a request's head, its body, or to take anything of an answer, in seconds
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    pub client_timeout: u32,
    /// Most connections at once; others wait
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one, help_heading = "Limits")]
    pub max_connections: usize,
    /// Form of the log on stderr
    #[arg(long, value_enum, default_value_t, help_heading = "Log")]
    pub log_format: LogFormat,
    /// Least important lines of the log: error, warn, info, debug or off
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = "Log")]
    pub log_level: LevelFilter,
    /// How questions guide the pictures.
    #[command(flatten)]
    pub guide: GuideArgs,
    /// Device and number format.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Formats of the decoder's matrices.
    #[command(flatten)]
    pub quantize: QuantizeArgs,
}

const HELP: &str = "\
Ctrl-C or SIGTERM lets requests under way finish, a second Ctrl-C drops them. Without a key, everybody who reaches the port may \
ask.";

/// Runs the command.
///
/// # Errors
/// Where an option or the checkpoint cannot be used, or the address is taken.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    let console = Console::new(&OutputArgs::default());
    let folders = checkpoint::find(args.model.as_deref(), args.base.as_deref(), &console)?;
    let settings = settings(args, folders)?;
    serve::install_log(args.log_format, args.log_level);
    if settings.keys.is_empty() && !args.host.is_loopback() {
        tracing::warn!("there is no --api-key, so everybody who reaches {} may ask", args.host);
    }
    serve::run(settings, console)
}

fn settings(args: &ServeArgs, folders: Folders) -> Result<Settings, Failure> {
    let decode = PictureArgs {
        apply_exif: args.apply_exif,
        max_image_pixels: args.max_image_pixels,
        max_image_bytes: args.max_image_bytes,
    };
    let media = Media {
        hosts: Hosts::new(&args.media_hosts),
        folder: args.media_path.as_deref().map(media_folder).transpose()?,
        max_bytes: args.max_image_bytes,
    };
    let engine = EngineOptions {
        cache_bytes: args.kv_cache_bytes,
        vision_bytes: args.picture_cache_bytes / 2,
        guided_bytes: args.picture_cache_bytes / 2,
        ..EngineOptions::default()
    };
    let Folders { model: folder, base } = folders;
    let of_folder = || {
        let folder = folder.canonicalize().ok()?;
        Some(hub_name_of(&folder).unwrap_or_else(|| folder_name(&folder))).filter(|name| !name.is_empty())
    };
    let name = args.served_model_name.clone().or_else(of_folder).unwrap_or_else(|| "default".into());
    distinct(&name, &args.adapters)?;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Ok(Settings {
        address: SocketAddr::new(args.host, args.port),
        name,
        assistant: AssistantOptions {
            quantization: Some(args.quantize.quantization()),
            ..args.guide.assistant_options(base.as_deref(), args.template.as_deref())
        },
        compute: args.compute.clone(),
        keys: Keys::new(keys(args)?),
        cors: Cors { origins: args.cors_origins.clone() },
        pictures: PictureLimits { media, decode: decode.decode_options(), max_images: args.max_images },
        model: ModelLimits { max_running: args.max_running, engine },
        connections: ConnectionLimits { most: args.max_connections, patience: seconds(args.client_timeout) },
        queue: args.queue,
        max_body_bytes: args.max_body_bytes as usize,
        request_timeout: seconds(args.request_timeout),
        grace: seconds(args.grace),
        adapters: args.adapters.clone(),
        folder,
    })
}

/// `NAME=DIR`.
fn named_folder(text: &str) -> Result<(String, PathBuf), String> {
    let (name, folder) = text.split_once('=').unwrap_or_default();
    match name.is_empty() || folder.is_empty() || name == "default" {
        true => Err("write it as NAME=DIR, with a name other than default".into()),
        false => Ok((name.to_owned(), folder.into())),
    }
}

/// Refuses names that two models have, of which clients would reach the first alone.
fn distinct(name: &str, adapters: &[(String, PathBuf)]) -> Result<(), Failure> {
    let mut names = BTreeSet::from([name]);
    match adapters.iter().find(|(adapter, _)| !names.insert(adapter)) {
        None => Ok(()),
        Some((twice, _)) if twice == name => Err(Failure::input(format_args!(
            "--adapter {twice}=...: the model itself is called {twice}; give the adapter another name, or the model \
             (--served-model-name)"
        ))),
        Some((twice, _)) => Err(Failure::input(format_args!(
            "--adapter {twice}=... is given twice; each adapter needs a name of its own"
        ))),
    }
}

/// Keys from the command line, the environment and a file.
fn keys(args: &ServeArgs) -> Result<Vec<String>, Failure> {
    let mut keys = args.api_keys.clone();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    keys.extend(words(&std::env::var(KEY_VARIABLE).unwrap_or_default()));
    if let Some(file) = &args.api_key_file {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| Failure::input(format_args!("{}: {error}", file.display())))?;
        let found = words(&text);
        if found.is_empty() {
            return Err(Failure::input(format_args!("{}: there is no key in it", file.display())));
        }
        keys.extend(found);
    }
    match keys.iter().any(String::is_empty) {
        true => Err(Failure::input("--api-key is empty; leave it out to let everybody ask")),
        false => Ok(keys),
    }
}

fn media_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let found = folder.canonicalize().ok().filter(|folder| folder.is_dir());
    found.ok_or_else(|| {
        Failure::input(format_args!("--media-path {}: there is no such folder", folder.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_one_name_are_refused() {
        let adapter = |name: &str| (name.to_owned(), PathBuf::from("folder"));
        assert!(distinct("m", &[adapter("a"), adapter("b")]).is_ok());
        for (adapters, part) in [
            ([adapter("a"), adapter("a")], "is given twice"),
            ([adapter("a"), adapter("m")], "--served-model-name"),
        ] {
            let message = distinct("m", &adapters).unwrap_err().message().unwrap();
            assert!(message.contains(part), "{message}");
        }
    }
}
