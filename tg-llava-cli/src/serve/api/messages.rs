use serde_json::Value;

use super::{ApiError, Fields};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sets the scene (`system`, `developer`).
    System,
    /// Asks.
    User,
    /// Answered.
    Assistant,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text, in which `<image>` is text.
    Text(String),
    /// A picture.
    Image {
        /// Where it is.
        url: String,
        /// The field that says so, for messages.
        param: String,
    },
}

/// One message, never without a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// The text parts, a line each.
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image { .. } => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    fn has_image(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Image { .. }))
    }
}

/// Reads `messages`: system messages joined into one text, and the turns, which alternate and end with the user's.
/// Messages of one role in a row are one turn.
pub fn read(value: Option<&Value>) -> Result<(Option<String>, Vec<Message>), ApiError> {
    let wrong = |at: &str, message: String| ApiError::field(at, "invalid_value", message);
    let list = value.and_then(Value::as_array).filter(|list| !list.is_empty()).ok_or_else(|| {
        ApiError::field("messages", "invalid_type", "messages must be a list with at least one message")
    })?;
    let mut system: Vec<String> = Vec::new();
    let mut turns: Vec<Message> = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let at = format!("messages[{i}]");
        let message = read_message(value, &at)?;
        if message.role != Role::User && message.has_image() {
            return Err(wrong(&format!("{at}.content"), "only the user's messages may show pictures".into()));
        }
        if message.role == Role::User && !message.has_image() && message.text().trim().is_empty() {
            return Err(wrong(
                &format!("{at}.content"),
                format!("{at} is empty; it needs a text or a picture"),
            ));
        }
        match (message.role, turns.last_mut()) {
            (Role::System, _) => system.push(message.text()),
            (role, Some(last)) if last.role == role => last.parts.extend(message.parts),
            (Role::Assistant, None) => {
                return Err(wrong(
                    &at,
                    "the first message, apart from the system's, must be the user's".into(),
                ));
            }
            _ => turns.push(message),
        }
    }
    if turns.last().is_none_or(|last| last.role != Role::User) {
        return Err(wrong("messages", "the last message must be the user's".into()));
    }
    Ok(((!system.is_empty()).then(|| system.join("\n")), turns))
}

fn read_message(value: &Value, at: &str) -> Result<Message, ApiError> {
    let fields = Fields::of(value, at)?;
    let role = match fields.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => {
            let message = format!("{at}.role must be system, developer, user or assistant");
            return Err(ApiError::field(format!("{at}.role"), "invalid_value", message));
        }
    };
    let content = format!("{at}.content");
    let parts = match fields.get("content") {
        Some(Value::String(text)) => vec![Part::Text(text.clone())],
        Some(Value::Array(parts)) => {
            let part = |(j, part)| read_part(part, &format!("{content}[{j}]"));
            parts.iter().enumerate().map(part).collect::<Result<_, _>>()?
        }
        // A message of tool calls.
        None if role == Role::Assistant => vec![Part::Text(String::new())],
        _ => {
            let message = format!("{content} must be a string or a list of parts");
            return Err(ApiError::field(content, "invalid_type", message));
        }
    };
    Ok(Message { role, parts })
}

fn read_part(value: &Value, at: &str) -> Result<Part, ApiError> {
    let fields = Fields::of(value, at)?;
    let wrong = |name: &str, expected: &str| {
        let name = format!("{at}.{name}");
        let message = format!("{name} must be {expected}");
        ApiError::field(name, "invalid_type", message)
    };
    match fields.get("type").and_then(Value::as_str) {
        Some("text") => match fields.get("text") {
            Some(Value::String(text)) => Ok(Part::Text(text.clone())),
            _ => Err(wrong("text", "a string")),
        },
        Some("image_url") => {
            let url = fields.get("image_url").and_then(|image| image.as_object()?.get("url")?.as_str());
            let url = url.ok_or_else(|| wrong("image_url", "an object with a `url`"))?;
            Ok(Part::Image { url: url.to_owned(), param: format!("{at}.image_url.url") })
        }
        _ => Err(wrong("type", "text or image_url")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn turns_alternate_and_the_system_is_apart() {
        let (system, turns) = read(Some(&json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "One."},
            {"role": "user", "content": [{"type": "text", "text": "Two?"}]},
            {"role": "assistant", "content": null},
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]},
        ])))
        .unwrap();
        assert_eq!(system.unwrap(), "Be brief.\nBe kind.");
        let roles: Vec<Role> = turns.iter().map(|turn| turn.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::User]);
        assert_eq!(turns[0].text(), "One.\nTwo?");
        let param = "messages[5].content[0].image_url.url".to_owned();
        assert_eq!(turns[2].parts, [Part::Image { url: "data:x".into(), param }]);
    }

    #[test]
    fn a_refusal_names_the_field() {
        let image = json!({"type": "image_url", "image_url": {"url": "data:x"}});
        for (messages, param) in [
            (json!([]), "messages"),
            (json!("hello"), "messages"),
            (json!([5]), "messages[0]"),
            (json!([{}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": " "}]), "messages[0].content"),
            (json!([{"role": "user", "content": []}]), "messages[0].content"),
            (json!([{"role": "user", "content": ["x"]}]), "messages[0].content[0]"),
            (json!([{"role": "user", "content": [{"type": "video"}]}]), "messages[0].content[0].type"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": "data:x"}]}]),
                "messages[0].content[0].image_url",
            ),
            (
                json!([{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "x"}]),
                "messages[0]",
            ),
            (json!([{"role": "system", "content": [image]}]), "messages[0].content"),
            (json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]), "messages"),
            (json!([{"role": "system", "content": "x"}]), "messages"),
        ] {
            let error = read(Some(&messages)).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{messages}: {}", error.message);
        }
        assert!(read(None).is_err());
    }
}
