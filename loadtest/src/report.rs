//! What a run prints: a table, or one JSON object.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Prints to standard output.
pub(crate) fn print(
    json: bool,
    outcome: &impl Serialize,
    rows: impl FnOnce() -> Vec<(&'static str, String)>,
) -> Result<(), Failure> {
    let text = if json {
        let json = serde_json::to_string_pretty(outcome);
        json.map_err(|error| Failure::Run(error.to_string()))? + "\n"
    } else {
        let rows = rows();
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}
