/// Holds text back while it may be the beginning of a stop string.
#[derive(Debug, Clone, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopFilter {
    /// A filter for `stops`; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Adds text and returns what can be shown now.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(position) = found {
            self.stopped = true;
            self.held.truncate(position);
            return std::mem::take(&mut self.held);
        }
        let keep = self.longest_possible_stop();
        let shown = self.held.len() - keep;
        let rest = self.held.split_off(shown);
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back, once no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Bytes at the end of the held text that begin a stop string.
    fn longest_possible_stop(&self) -> usize {
        let begins = |start: &usize| {
            self.held.is_char_boundary(*start)
                && self.stops.iter().any(|stop| stop.starts_with(&self.held[*start..]))
        };
        (0..self.held.len()).find(begins).map_or(0, |start| self.held.len() - start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stop_across_pieces_is_never_shown() {
        let mut filter = StopFilter::new(&["</s>".into(), "###".into()]);
        assert_eq!(filter.push("red <"), "red ");
        assert_eq!(filter.push("/"), "");
        assert_eq!(filter.push("p> #"), "</p> ");
        assert_eq!(filter.push("##tail"), "");
        assert!(filter.stopped());
        assert_eq!(filter.finish(), "");
    }

    proptest! {
        /// However the text is cut into pieces, what is shown is the text before the first stop string.
        #[test]
        fn pieces_do_not_matter(text in "[ab#é]{0,20}", cuts in prop::collection::vec(1usize..4, 0..20)) {
            let mut filter = StopFilter::new(&["a#".into(), "#é#".into()]);
            let chars: Vec<char> = text.chars().collect();
            let (mut shown, mut start) = (String::new(), 0usize);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let end = start.saturating_add(cut).min(chars.len());
                shown += &filter.push(&chars[start..end].iter().collect::<String>());
                start = end;
            }
            shown += &filter.finish();
            let end = ["a#", "#é#"].iter().filter_map(|s| text.find(s)).min().unwrap_or(text.len());
            prop_assert_eq!(shown, &text[..end]);
        }
    }
}
