//! Bars and spinners on stderr for what takes a while.

use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::console::Console;

/// A bar or spinner; it vanishes when dropped, and draws nothing where nothing may be drawn.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar up to `total`, which is asked for only where the bar is drawn; a spinner where it is not known.
    pub fn bar(console: &Console, what: &str, total: impl FnOnce() -> Option<u64>) -> Self {
        if !console.animated() {
            return Self(ProgressBar::hidden());
        }
        match total().filter(|&total| total > 0) {
            Some(total) => Self::drawn(
                "{prefix} {bar:30} {percent:>3}% of {msg}, {elapsed}",
                (what, &format!("{} values", short_count(total))),
                total,
            ),
            None => Self::spinner(console, what),
        }
    }

    /// A bar over `total` things that are called `name`, with the time that is left.
    pub fn items(console: &Console, what: &str, name: &str, total: usize) -> Self {
        if !console.animated() {
            return Self(ProgressBar::hidden());
        }
        let template = "{prefix} {bar:30} {pos} of {len} {msg}, {elapsed}, {eta} left";
        Self::drawn(template, (what, name), total as u64)
    }

    /// A bar over `total` bytes, with the time that is left; a spinner where it is not known.
    pub fn bytes(console: &Console, what: &str, total: Option<u64>) -> Self {
        match total.filter(|_| console.animated()) {
            Some(total) => {
                let template = "{prefix} {bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
                Self::drawn(template, (what, ""), total)
            }
            None => Self::spinner(console, what),
        }
    }

    fn drawn(template: &str, (prefix, message): (&str, &str), total: u64) -> Self {
        let style = ProgressStyle::with_template(template);
        // The style first: every other setting draws.
        let bar = ProgressBar::new(total)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_prefix(prefix.to_owned())
            .with_message(message.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// A spinner with a text.
    pub fn spinner(console: &Console, what: &str) -> Self {
        if !console.animated() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
        let spinner = ProgressBar::new_spinner()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
            .with_message(what.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self(spinner)
    }

    /// Moves the bar to where it belongs.
    pub fn set(&self, position: u64) {
        self.0.set_position(position);
    }

    /// Moves the bar on.
    pub fn advance(&self, by: usize) {
        self.0.inc(by as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A count in three or four characters and a unit: `7.06 B`.
pub fn short_count(count: u64) -> String {
    let scale = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")];
    // Rounding must not lead to `1000 K`.
    let chosen = scale.into_iter().find(|(unit, _)| count as f64 >= 0.9995 * unit);
    match chosen {
        Some((unit, name)) => {
            let value = count as f64 / unit;
            let decimals = usize::from(value < 99.95) + usize::from(value < 9.995);
            format!("{value:.decimals$} {name}")
        }
        None => count.to_string(),
    }
}

/// Bytes with a binary unit: `13.1 GiB`.
pub fn short_bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stay_short() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.00 K"),
            (9_995, "10.0 K"),
            (99_949, "99.9 K"),
            (999_499, "999 K"),
            (999_600, "1.00 M"),
            (7_063_427_072, "7.06 B"),
        ] {
            assert_eq!(short_count(count), text);
        }
    }
}
