//! Where the logs and data of a cluster are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A directory of its own, which is gone when it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    is_kept: bool,
}

impl Directory {
    pub(super) fn new() -> io::Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("fanfare-cluster-{}-{}", std::process::id(), now.as_nanos());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self { path, is_kept: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it to whoever wants to look at it.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.is_kept {
            // What is left is a temporary file.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
