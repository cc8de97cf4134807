//! Samples as LLaVA's data files hold them.

use serde::Serialize;
use tg_llava_core::conversation::Turn;

/// One sample with one picture.
#[derive(Debug, Serialize)]
pub(super) struct LlavaSample {
    pub id: String,
    /// Path of the picture, relative to the image folder, with `/` on every system.
    pub image: String,
    pub conversations: Vec<Turn>,
}

/// A JSON array with one sample a line, so that messages about a line point at one sample.
pub(super) fn to_json(samples: &[LlavaSample]) -> Result<String, serde_json::Error> {
    let lines: Vec<String> = samples.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(match lines.as_slice() {
        [] => "[]\n".into(),
        lines => format!("[\n{}\n]\n", lines.join(",\n")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_sample() {
        let sample = |id: &str| LlavaSample {
            id: id.into(),
            image: "train/1.png".into(),
            conversations: vec![Turn::human("<image>\nwhat?"), Turn::gpt("é")],
        };
        let json = to_json(&[sample("a"), sample("b")]).unwrap();
        let lines: Vec<_> = json.lines().collect();
        assert_eq!(
            lines[1],
            r#"{"id":"a","image":"train/1.png","conversations":[{"from":"human","value":"<image>\nwhat?"},{"from":"gpt","value":"é"}]},"#
        );
        assert_eq!((lines[0], lines[3], lines.len()), ("[", "]", 4));
        assert_eq!(to_json(&[]).unwrap(), "[]\n");
    }
}
