//! Files that are named in the configuration and read again when they change: certificates, keys, passwords.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The most bytes of such a file: more than any bundle of certificates has.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Why a file is refused. The text never holds what is in it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or may not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a directory, a pipe, …
    #[error("{}: not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It is larger than anything of its kind.
    #[error("{}: has more than {FILE_MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// It holds a secret, and others than its owner and group may read it, or others than its owner may change it.
    #[error("{path}: too many have access (mode {mode:03o}); run: chmod 600 '{path}'", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Who may have access to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody may read it.
    Public,
    /// Its owner, and its group at most: secrets that an orchestrator mounts belong to root and are given to a service
    /// by its group.
    Private,
}

/// The whole of a file.
pub(crate) fn read(path: &Path, access: Access) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Read { path: path.to_owned(), source };
    // Before opening it: to open a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if access == Access::Private && mode & 0o037 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    Ok(content)
}

/// By what a changed file is known: when its content was changed, or who may read it, in seconds and nanoseconds; its
/// size, and its inode. `None` while it cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(i64, i64, u64, u64)>);

impl Stamp {
    pub(crate) fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        Self(metadata.map(|file| (file.ctime(), file.ctime_nsec(), file.len(), file.ino())))
    }
}
