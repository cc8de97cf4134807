//! Templates and the prompts they make.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;
use tg_llava_core::conversation::{Conversation, Message, Role, Template};

use super::super::report::Row;
use super::Tally;

#[derive(Deserialize)]
pub(super) struct File {
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

pub(super) fn compare(file: &File, rows: &mut Vec<Row>) {
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
