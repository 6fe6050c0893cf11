//! [`Directory`]: a place for files that is gone with its test.

use std::fs::{create_dir, remove_dir_all};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// An empty directory of a name that no other has.
pub struct Directory(PathBuf);

impl Directory {
    /// Makes one where temporary files go.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-{}", Uuid::new_v4()));
        create_dir(&path).unwrap();
        Self(path)
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes everything in it.
    pub fn clear(&self) {
        remove_dir_all(&self.0).unwrap();
        create_dir(&self.0).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = remove_dir_all(&self.0);
    }
}
