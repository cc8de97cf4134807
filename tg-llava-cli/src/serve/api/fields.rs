use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::ApiError;

/// The fields of a request's object; `null` is as good as absent.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'v> {
    object: &'v Map<String, Value>,
}

/// A field of a wrong type.
fn wrong_type(name: &str, expected: &str) -> ApiError {
    ApiError::field(name, "invalid_type", format!("{name} must be {expected}"))
}

/// A field of the right type that is out of range.
pub fn wrong_value(name: &str, expected: &str) -> ApiError {
    ApiError::field(name, "invalid_value", format!("{name} must be {expected}"))
}

impl<'v> Fields<'v> {
    /// Those of `value`, which messages call `name`.
    pub fn of(value: &'v Value, name: &str) -> Result<Self, ApiError> {
        value.as_object().map(|object| Self { object }).ok_or_else(|| wrong_type(name, "an object"))
    }

    /// Those of a whole body.
    pub fn of_body(body: &'v Value) -> Result<Self, ApiError> {
        let object = body.as_object().ok_or_else(|| ApiError {
            param: None,
            ..ApiError::field("", "invalid_json", "the body must be a JSON object")
        })?;
        Ok(Self { object })
    }

    /// The field, as it is.
    pub fn get(self, name: &str) -> Option<&'v Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// `true` or `false`; absent is `false`.
    pub fn flag(self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| wrong_type(name, "true or false")),
        }
    }

    /// A text.
    pub fn text(self, name: &str) -> Result<Option<&'v str>, ApiError> {
        let text = |value: &'v Value| value.as_str().ok_or_else(|| wrong_type(name, "a string"));
        self.get(name).map(text).transpose()
    }

    /// A number in a closed range.
    pub fn number(self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let number = value.as_f64().ok_or_else(|| wrong_type(name, &expected))?;
        if range.contains(&number) { Ok(Some(number)) } else { Err(wrong_value(name, &expected)) }
    }

    /// A whole number in a range.
    pub fn integer(self, name: &str, range: RangeInclusive<i128>) -> Result<Option<i128>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let whole = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
        let number = whole.ok_or_else(|| wrong_type(name, &expected))?;
        if range.contains(&number) { Ok(Some(number)) } else { Err(wrong_value(name, &expected)) }
    }

    /// Refuses a field that would change the answer if this server knew how; `harmless` values are the default's.
    pub fn refuse(self, name: &str, harmless: impl Fn(&Value) -> bool) -> Result<(), ApiError> {
        match self.get(name) {
            Some(value) if !harmless(value) => Err(ApiError::field(
                name,
                "unsupported_parameter",
                format!("{name} is not supported by this server; leave it out"),
            )),
            _ => Ok(()),
        }
    }
}
