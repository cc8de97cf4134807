//! The log: one line an event on stderr, with the request's id.

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

/// How lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs: a JSON object a line
    Json,
}

/// Begins to log. Whoever logs already in this process goes on.
pub fn install(format: LogFormat, level: LevelFilter) {
    let builder = fmt().with_max_level(level).with_target(false).with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(builder.with_ansi(false).finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish(),
        ),
    };
}
