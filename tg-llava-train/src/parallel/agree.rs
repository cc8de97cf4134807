//! Results that all ranks share.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Collective, ParallelError};

/// What each rank has, by rank, where all of them have something.
///
/// # Errors
/// This rank's own error; where it has none, the first of another rank.
pub fn agree<T: Serialize + DeserializeOwned, E: std::fmt::Display + From<ParallelError>>(
    collective: &mut dyn Collective,
    result: Result<T, E>,
) -> Result<Vec<T>, E> {
    if collective.world().size() == 1 {
        return result.map(|own| vec![own]);
    }
    let own = result.as_ref().map_err(ToString::to_string);
    // Without a form in JSON, such as that of a path that is not UTF-8, no rank can read it.
    let bytes = serde_json::to_vec(&own).unwrap_or_default();
    let all = collective.exchange(&bytes)?;
    result?;
    let read = |(rank, bytes): (usize, &Vec<u8>)| -> Result<T, ParallelError> {
        let found: Result<T, String> = serde_json::from_slice(bytes).map_err(|error| {
            ParallelError::Unlike { rank, what: format!("it answers what cannot be read: {error}") }
        })?;
        found.map_err(|message| ParallelError::Other { rank, message })
    };
    Ok(all.iter().enumerate().map(read).collect::<Result<_, _>>()?)
}

/// `result`, where all ranks have one.
///
/// # Errors
/// As [`agree`].
pub fn together<T, E: std::fmt::Display + From<ParallelError>>(
    collective: &mut dyn Collective,
    result: Result<T, E>,
) -> Result<T, E> {
    match result {
        Ok(own) => agree::<(), E>(collective, Ok(())).map(|_| own),
        Err(error) => {
            Err(agree::<(), E>(collective, Err(error)).expect_err("an error of its own comes back"))
        }
    }
}
