//! The demo's folder: private, in the system's folder for temporary files, removed when the demo ends.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A folder that is removed with its content when this is dropped.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Creates a folder of mode 0700 with an unpredictable name.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub(super) fn make() -> io::Result<Self> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let path = std::env::temp_dir().join(format!("gatepost-demo-{:08x}", u32::from_be_bytes(random)));
        // Fails if the path exists, so that nobody else's folder is ever used or removed.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing more can be done if it cannot be removed.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn private_and_gone_at_the_end() {
        let folder = Folder::make().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::create_dir(folder.join("a")).unwrap();
        std::fs::write(folder.join("a/b"), "c").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
