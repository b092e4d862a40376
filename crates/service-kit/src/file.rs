//! Files that a configuration names: read whole, within a bound, and only if they have an end.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

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
    #[error("{}: has more than {max_bytes} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it may have.
        max_bytes: u64,
    },
    /// It holds a secret, and others than its owner and group may read it, or others than its owner may change or run it.
    #[error("{path}: too many have access (mode {mode:03o}); run: chmod 600 '{path}', or mount the secret with mode 0440 (Kubernetes: `defaultMode: 0440` with `fsGroup`; Swarm: `mode: 0440` with `gid`)", path = path.display())]
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
    /// Its owner, and its group at most, because secrets that an orchestrator mounts belong to root and are given to a
    /// service by its group; its owner alone may change it.
    Private,
}

/// The whole of the regular file at `path`, of at most `max_bytes`.
pub(crate) fn read(path: &Path, max_bytes: u64, access: Access) -> Result<Vec<u8>, FileError> {
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
    file.take(max_bytes + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > max_bytes {
        return Err(FileError::TooLarge { path: path.to_owned(), max_bytes });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"12345678").unwrap();
        assert_eq!(read(file.path(), 8, Access::Public).unwrap(), b"12345678");
        let error = read(file.path(), 7, Access::Public).unwrap_err().to_string();
        assert_eq!(error, format!("{}: has more than 7 bytes", file.path().display()));
        // One that has no end, and says of itself that it has no bytes.
        assert!(matches!(read(Path::new("/dev/zero"), 8, Access::Public), Err(FileError::NotAFile(_))));
    }
}
