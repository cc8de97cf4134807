//! GQA: answers that are equal.

/// An answer as it is submitted.
pub fn submitted(answer: &str) -> String {
    answer.trim_end_matches('.').to_lowercase()
}
