//! Why a run ends early, by exit code.

use std::fmt;
use std::io;

/// What is printed as one line, and whether the caller or the server is at fault.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit code 2: the run could not begin as it was asked for.
    Setup(String),
    /// Exit code 1: it began, and did not go as it must.
    Run(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Setup(text) | Self::Run(text)) = self;
        f.write_str(text)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Run(error.to_string())
    }
}
