//! Prompts, token ids and labels against the reference's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tg_llava_core::conversation::{
    Conversation, GuideTurn, ImageMarks, LabelOptions, LabeledSample, Message, Role, Speaker, Template, Turn,
    guide_text, label_conversation,
};
use tg_llava_core::nn::IGNORE_INDEX;
use tg_llava_core::tokenizer::{GuideCleaning, GuideCut, GuideTokenizer, TextTokenizer};

use super::report::Row;

/// Compares the folder `dir`, which holds any of `prompts.json`, `tokenization.json` and `preprocess.json`, and the
/// tokenizers that the latter two name under `tokenizers/`.
///
/// # Errors
/// Where a file cannot be read or is not laid out as expected.
pub fn run(dir: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if let Some(file) = read(&dir.join("prompts.json"))? {
        prompts(&file, &mut rows);
    }
    let mut tokenizers = Tokenizers { dir: dir.join("tokenizers"), loaded: BTreeMap::new() };
    let preprocess: Option<PreprocessFile> = read(&dir.join("preprocess.json"))?;
    if let Some(file) = read(&dir.join("tokenization.json"))? {
        texts(&file, &mut tokenizers, &mut rows)?;
        guides(&file, preprocess.as_ref(), &tokenizers.dir.join("clip"), &mut rows)?;
    }
    if let Some(file) = &preprocess {
        for (name, group) in &file.groups {
            labels(name, group, &file.conversations, &mut tokenizers, &mut rows)?;
        }
    }
    anyhow::ensure!(
        !rows.is_empty(),
        "{}: expected prompts.json, tokenization.json or preprocess.json",
        dir.display()
    );
    Ok(rows)
}

/// The JSON in `path`; `None` where there is no such file.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).map(Some).with_context(|| path.display().to_string())
}

/// Collects the comparisons of one group of the report.
#[derive(Default)]
struct Tally {
    compared: usize,
    difference: Option<String>,
}

impl Tally {
    /// Counts one comparison; `what` is only kept for the first difference.
    fn check(&mut self, same: bool, what: impl FnOnce() -> String) {
        self.compared += 1;
        if !same && self.difference.is_none() {
            self.difference = Some(what());
        }
    }

    fn row(self, group: impl Into<String>, rows: &mut Vec<Row>) {
        if self.compared > 0 {
            rows.push(Row::exact(group, self.compared, self.difference));
        }
    }

    /// The row of a group where the reference is wrong: a difference that remains is still a failure.
    fn by_design(self, group: impl Into<String>, note: &str, rows: &mut Vec<Row>) {
        match self.difference {
            _ if self.compared == 0 => {}
            None => rows.push(Row::by_design(group, self.compared, note)),
            difference => rows.push(Row::exact(group, self.compared, difference)),
        }
    }
}

/// Where two lists part, for a report.
fn parting<T: PartialEq + std::fmt::Debug>(ours: &[T], theirs: &[T]) -> String {
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    format!(
        "at {at}: {:?}, expected {:?} (lengths {} and {})",
        ours.get(at),
        theirs.get(at),
        ours.len(),
        theirs.len()
    )
}

// Prompts ------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct PromptsFile {
    templates: BTreeMap<String, GoldenTemplate>,
    default_template: Option<String>,
    prompts: Vec<GoldenPrompt>,
}

#[derive(Deserialize)]
struct GoldenTemplate {
    system: String,
    roles: [String; 2],
    sep_style: String,
    sep: String,
    sep2: Option<String>,
    version: String,
    initial_messages: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct GoldenPrompt {
    template: String,
    case: String,
    messages: Vec<GoldenMessage>,
    prompt: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct GoldenMessage {
    role_index: usize,
    text: Option<String>,
    #[serde(default)]
    with_image_tuple: bool,
}

fn prompts(file: &PromptsFile, rows: &mut Vec<Row>) {
    let mut tally = Tally::default();
    for (name, golden) in &file.templates {
        let same = Template::by_name(name).is_ok_and(|ours| same_template(ours, golden));
        tally.check(same, || format!("template {name} is missing or differs"));
    }
    if let Some(name) = &file.default_template {
        tally.check(Template::by_name(name).is_ok(), || format!("default template {name} is missing"));
    }
    tally.row("templates", rows);

    let (mut exact, mut refused) = (Tally::default(), Tally::default());
    for golden in &file.prompts {
        let place = || format!("{} / {}", golden.template, golden.case);
        let ours = written(golden);
        match (&golden.prompt, &ours) {
            (Some(theirs), Ok(ours)) => {
                exact.check(ours == theirs, || format!("{}: {ours:?}, expected {theirs:?}", place()))
            }
            (Some(_), Err(error)) => exact.check(false, || format!("{}: {error}", place())),
            (None, Err(_)) => exact.check(true, String::new),
            (None, Ok(ours)) => {
                // What the reference fails to write must at least hold every message.
                let holds =
                    golden.messages.iter().filter_map(|m| m.text.as_deref()).all(|text| ours.contains(text));
                refused.check(golden.error.is_some() && holds, || format!("{}: {ours:?}", place()));
            }
        }
    }
    exact.row("prompts", rows);
    let note = "the reference raises an error; the message is written with the template's one separator";
    refused.by_design("prompts it fails on", note, rows);
}

fn same_template(ours: &Template, golden: &GoldenTemplate) -> bool {
    let opening = ours.opening.iter().map(|&(role, text)| (ours.role(role), text));
    let expected = golden.initial_messages.iter().map(|(role, text)| (role.as_str(), text.as_str()));
    ours.system == golden.system
        && ours.roles == golden.roles.each_ref().map(String::as_str)
        && ours.style.name() == golden.sep_style
        && ours.sep == golden.sep
        && ours.sep2 == golden.sep2.as_deref()
        && ours.version == golden.version
        && opening.eq(expected)
}

fn written(golden: &GoldenPrompt) -> Result<String> {
    let mut conversation = Conversation::new(Template::by_name(&golden.template)?);
    conversation.messages.extend(golden.messages.iter().map(|message| Message {
        role: if message.role_index == 0 { Role::User } else { Role::Assistant },
        text: message.text.clone().unwrap_or_default(),
        picture: message.with_image_tuple,
    }));
    Ok(conversation.prompt()?.text)
}

// Tokenizers ---------------------------------------------------------------------------------------------

/// The tokenizers under a folder, each loaded once.
struct Tokenizers {
    dir: PathBuf,
    loaded: BTreeMap<String, TextTokenizer>,
}

impl Tokenizers {
    fn get(&mut self, name: &str) -> Result<&TextTokenizer> {
        if !self.loaded.contains_key(name) {
            self.loaded.insert(name.into(), TextTokenizer::from_dir(self.dir.join(name))?);
        }
        Ok(&self.loaded[name])
    }

    /// The same tokenizer built from the files beside `tokenizer.json`, where there are any: what the reference's
    /// slow classes are built from.
    fn rebuilt(&self, name: &str) -> Result<Option<TextTokenizer>> {
        let dir = self.dir.join(name);
        Ok(if dir.join("tokenizer.model").exists() {
            Some(TextTokenizer::from_sentencepiece(dir)?)
        } else if dir.join("merges.txt").exists() {
            Some(TextTokenizer::from_vocab_and_merges(dir)?)
        } else {
            None
        })
    }
}

#[derive(Deserialize)]
struct TokenizationFile {
    #[serde(default)]
    clip_guides: Vec<GoldenGuide>,
    #[serde(default)]
    clip_texts: Vec<GoldenGuide>,
    #[serde(default)]
    texts: BTreeMap<String, Vec<GoldenText>>,
    #[serde(default)]
    tokenizer_image_token: Vec<GoldenImagePrompt>,
}

#[derive(Deserialize)]
struct GoldenText {
    text: String,
    ids: Vec<u32>,
    decoded: Option<String>,
    decoded_skip_special: Option<String>,
    slow_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct GoldenImagePrompt {
    tokenizer: String,
    prompt: String,
    ids: Vec<i64>,
}

fn texts(file: &TokenizationFile, tokenizers: &mut Tokenizers, rows: &mut Vec<Row>) -> Result<()> {
    for (name, texts) in &file.texts {
        let rebuilt = tokenizers.rebuilt(name)?;
        let tokenizer = tokenizers.get(name)?;
        let (mut ids, mut decoded, mut slow) = (Tally::default(), Tally::default(), Tally::default());
        for golden in texts {
            let text = &golden.text;
            let ours = tokenizer.encode(text, true)?;
            ids.check(ours == golden.ids, || format!("{text:?} {}", parting(&ours, &golden.ids)));
            for (skip, theirs) in [(false, &golden.decoded), (true, &golden.decoded_skip_special)] {
                let Some(theirs) = theirs else { continue };
                let ours = tokenizer.decode(&golden.ids, skip)?;
                decoded.check(&ours == theirs, || format!("{ours:?}, expected {theirs:?}"));
            }
            if let Some(rebuilt) = &rebuilt {
                let theirs = golden.slow_ids.as_ref().unwrap_or(&golden.ids);
                let ours = rebuilt.encode(text, true)?;
                slow.check(&ours == theirs, || format!("{text:?} {}", parting(&ours, theirs)));
            }
        }
        ids.row(format!("{name} ids"), rows);
        decoded.row(format!("{name} decoded"), rows);
        slow.row(format!("{name} ids without tokenizer.json"), rows);
    }
    let mut tally = Tally::default();
    for golden in &file.tokenizer_image_token {
        let ours = tokenizers.get(&golden.tokenizer)?.encode_with_images(&golden.prompt)?.ids;
        tally.check(ours == golden.ids, || format!("{:?} {}", golden.prompt, parting(&ours, &golden.ids)));
    }
    tally.row("prompts with pictures, ids", rows);
    Ok(())
}

// Guides -------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct GoldenGuide {
    id: Option<String>,
    #[serde(alias = "guide_text")]
    text: String,
    ids: Vec<i64>,
    ids_cut_77: Option<Vec<i64>>,
    slow_ids: Option<Vec<i64>>,
}

/// Positions at which the reference cuts guide ids.
const GUIDE_POSITIONS: usize = 77;

fn guides(
    file: &TokenizationFile,
    data: Option<&PreprocessFile>,
    dir: &Path,
    rows: &mut Vec<Row>,
) -> Result<()> {
    if file.clip_guides.is_empty() && file.clip_texts.is_empty() {
        return Ok(());
    }
    let tokenizer = GuideTokenizer::from_dir(dir, Some(GUIDE_POSITIONS))?;
    let repairing = tokenizer.clone().with_cleaning(GuideCleaning::Ftfy);
    let [mut chosen, mut ids, mut cut, mut kept, mut slow] = std::array::from_fn(|_| Tally::default());
    let mut unrepaired = Tally::default();
    for golden in file.clip_guides.iter().chain(&file.clip_texts) {
        let text = &golden.text;
        let turns = golden.id.as_ref().and_then(|id| data?.conversations.iter().find(|c| &c.id == id));
        if let Some(conversation) = turns {
            let ours = guide_text(&turns_of(&conversation.conv)?, GuideTurn::Last)?;
            chosen.check(&ours == text, || format!("{ours:?}, expected {text:?}"));
        }
        let whole = tokenizer.encode(text, GuideCut::Whole)?;
        ids.check(whole == golden.ids, || format!("{text:?} {}", parting(&whole, &golden.ids)));
        if let Some(theirs) = &golden.ids_cut_77 {
            let ours = tokenizer.encode(text, GuideCut::DropEnd)?;
            cut.check(&ours == theirs, || format!("{text:?} {}", parting(&ours, theirs)));
            if theirs.len() < golden.ids.len() {
                let ours = tokenizer.encode(text, GuideCut::KeepEnd)?;
                let last = theirs.len() - 1;
                let same = ours[..last] == theirs[..last] && ours.get(last..) == Some(&[tokenizer.end_id()]);
                kept.check(same, || format!("{text:?} {}", parting(&ours, theirs)));
            }
        }
        if let Some(theirs) = &golden.slow_ids {
            let same = &repairing.encode(text, GuideCut::Whole)? == theirs;
            if same { &mut slow } else { &mut unrepaired }.check(true, String::new);
        }
    }
    chosen.row("guide texts", rows);
    ids.row("guide ids", rows);
    cut.row("guide ids cut as in the reference", rows);
    kept.by_design("guide ids cut", "the reference drops the end token with the rest; it is kept", rows);
    slow.row("guide ids of the slow tokenizer with ftfy", rows);
    let note = "ftfy also repairs wrongly decoded text, which is left as it is";
    unrepaired.by_design("guide ids of the slow tokenizer with ftfy", note, rows);
    Ok(())
}

// Labels -------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct PreprocessFile {
    conversations: Vec<GoldenConversation>,
    groups: BTreeMap<String, Group>,
}

#[derive(Deserialize)]
struct GoldenConversation {
    id: String,
    has_image: bool,
    conv: Vec<GoldenTurn>,
}

#[derive(Deserialize)]
struct GoldenTurn {
    from: String,
    value: String,
}

#[derive(Deserialize)]
struct Group {
    version: String,
    tokenizer: String,
    model_max_length: usize,
    pad_token_id: Option<u32>,
    bos_token_id: Option<u32>,
    note: Option<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    input_ids: Option<Vec<i64>>,
    labels: Option<Vec<i64>>,
    #[serde(default)]
    warnings: Vec<String>,
    error: Option<String>,
    slow_tokenizer: Option<SlowCase>,
}

#[derive(Deserialize)]
struct SlowCase {
    input_ids: Vec<i64>,
    labels: Vec<i64>,
}

fn turns_of(turns: &[GoldenTurn]) -> Result<Vec<Turn>> {
    let turn = |t: &GoldenTurn| Ok(Turn { from: Speaker::try_from(t.from.clone())?, value: t.value.clone() });
    turns.iter().map(turn).collect()
}

fn labels(
    name: &str,
    group: &Group,
    conversations: &[GoldenConversation],
    tokenizers: &mut Tokenizers,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let template = Template::for_version(&group.version);
    let rebuilt = tokenizers.rebuilt(&group.tokenizer)?;
    let tokenizer = tokenizers.get(&group.tokenizer)?;
    let [mut ids, mut exact, mut mended, mut refused, mut slow] = std::array::from_fn(|_| Tally::default());
    if let Some(theirs) = group.pad_token_id {
        let ours = template.pad_id(tokenizer);
        ids.check(ours == theirs, || format!("padding id {ours}, expected {theirs}"));
    }
    let ours = tokenizer.special().bos;
    ids.check(ours == group.bos_token_id, || format!("BOS id {ours:?}, expected {:?}", group.bos_token_id));
    // The group that tests the marks says so only in words.
    let marked = group.note.as_deref().is_some_and(|note| note.contains("mm_use_im_start_end=True"));
    let marks = if marked { ImageMarks::StartEnd } else { ImageMarks::None };
    for case in &group.cases {
        let golden = conversations.iter().find(|c| c.id == case.id);
        let golden = golden.with_context(|| format!("{name}: no conversation {:?}", case.id))?;
        let options = LabelOptions {
            picture: golden.has_image,
            marks,
            max_length: Some(group.model_max_length),
            ..LabelOptions::default()
        };
        let turns = turns_of(&golden.conv);
        let label = |tokenizer| {
            Ok(label_conversation(
                tokenizer,
                template,
                turns.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?,
                &options,
            )?)
        };
        let ours: Result<LabeledSample> = label(tokenizer);
        let (Some(their_ids), Some(their_labels)) = (&case.input_ids, &case.labels) else {
            let said = case.error.as_deref().unwrap_or("no ids and no error");
            refused.check(case.error.is_some() && ours.is_err(), || {
                format!("{}: the reference says {said}", case.id)
            });
            continue;
        };
        let ours = match ours {
            Ok(ours) => ours,
            Err(error) => {
                ids.check(false, || format!("{}: {error}", case.id));
                continue;
            }
        };
        ids.check(&ours.ids == their_ids, || format!("{}: {}", case.id, parting(&ours.ids, their_ids)));
        if is_wrong(case, template, golden) {
            let problem = unlearned(&ours, golden, &options);
            mended.check(problem.is_none(), || format!("{}: {}", case.id, problem.unwrap_or_default()));
        } else {
            let same = &ours.labels == their_labels;
            exact.check(same, || format!("{}: {}", case.id, parting(&ours.labels, their_labels)));
        }
        if let (Some(theirs), Some(rebuilt)) = (&case.slow_tokenizer, &rebuilt) {
            let ours: Result<LabeledSample> = label(rebuilt);
            let ours = ours?;
            slow.check(ours.ids == theirs.input_ids, || {
                format!("{}: {}", case.id, parting(&ours.ids, &theirs.input_ids))
            });
            slow.check(ours.labels == theirs.labels, || {
                format!("{}: {}", case.id, parting(&ours.labels, &theirs.labels))
            });
        }
    }
    ids.row(format!("{name} ids"), rows);
    exact.row(format!("{name} labels"), rows);
    let note = "the reference ignores the whole sample; every answer is learned, by its place in the text";
    mended.by_design(format!("{name} labels it loses"), note, rows);
    refused.row(format!("{name} refused"), rows);
    slow.row(format!("{name} without tokenizer.json"), rows);
    Ok(())
}

/// Whether the reference itself says that its labels are wrong, or supervises something where there is no answer at
/// all (its count of ChatML rounds, which a sample with an empty answer slips through).
fn is_wrong(case: &Case, template: &Template, golden: &GoldenConversation) -> bool {
    let nothing_said = golden.conv.iter().all(|turn| turn.from != "gpt" || turn.value.is_empty());
    !case.warnings.is_empty() || (template.version == "mpt" && nothing_said)
}

/// What is wrong with labels that have no counterpart: each answer must be one run of supervised ids, and each
/// supervised id must stand where it is learned.
fn unlearned(ours: &LabeledSample, golden: &GoldenConversation, options: &LabelOptions) -> Option<String> {
    let learned: Vec<bool> = ours.labels.iter().map(|&label| label != IGNORE_INDEX).collect();
    if ours.labels.iter().zip(&ours.ids).any(|(&label, &id)| label != IGNORE_INDEX && label != id) {
        return Some("a label differs from its id".into());
    }
    let runs =
        learned.iter().zip([false].iter().chain(&learned)).filter(|(now, before)| **now && !**before).count();
    let first_human = golden.conv.iter().position(|turn| turn.from == "human").unwrap_or(0);
    let answers =
        golden.conv[first_human..].iter().filter(|turn| turn.from == "gpt" && !turn.value.is_empty()).count();
    let cut = !options.picture && Some(ours.ids.len()) == options.max_length;
    (runs != answers && !cut).then(|| format!("{runs} runs of labels for {answers} answers"))
}
