//! The lock file of a cluster: whoever holds its lock acts, everyone else stands by.
//!
//! The lock is the kernel's (`flock`). It ends with the last thread of the process that holds it, however that ends,
//! so what its next holder does comes after everything that the one before did. Nothing here depends on time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;

/// How the text in a lock file begins. A file with anything else in it is somebody's, and is left alone.
const MARK: &str = "force12-scheduler ";
/// The most bytes of the text that are read.
const TEXT_MAX_BYTES: u64 = 512;

/// A lock file, and whether its lock is ours. The lock is let go of when this is dropped, or with the process.
///
/// The file itself stays where it is: were it deleted, two could each hold the lock of a file of that name.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
    held: bool,
}

/// Why there is no lock to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be opened, nor made.
    #[error(
        "lock_file {path}: cannot be opened: {source}; it takes a file of its own, in a directory that is there and that this user may write to"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a directory, a device, or the like.
    #[error(
        "lock_file {0}: is not a regular file; name one that is there for nothing else, or does not exist yet"
    )]
    NotAFile(PathBuf),
    /// There is something else in it.
    #[error(
        "lock_file {0}: holds something else than a scheduler's name, and would be overwritten; name another file"
    )]
    NotOurs(PathBuf),
    /// The file system has no locks, or has run out of them.
    #[error("lock_file {path}: cannot be locked: {source}; it takes a local file system")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not there any more, so that another scheduler could lock another file of that name.
    #[error("lock_file {0}: was deleted or replaced while it was held; it has to stay where it is")]
    Replaced(PathBuf),
}

impl Lock {
    /// Opens the file, which is made if it is not there, and tries to lock it.
    pub fn open(path: &Path) -> Result<Self, LockError> {
        let mut lock = Self { path: path.to_owned(), file: open(path)?, held: false };
        lock.take()?;
        Ok(lock)
    }

    /// Whether the lock is ours.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tries to lock the file, without waiting; true if the lock is ours, also if it was before.
    pub fn take(&mut self) -> Result<bool, LockError> {
        if self.held {
            return Ok(true);
        }
        if !self.is_in_place() {
            self.file = open(&self.path)?;
        }
        match self.file.try_lock() {
            // What was locked is a file of the past if it has been replaced in between: the next try opens the new one.
            Ok(()) => self.held = self.is_in_place(),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => {
                return Err(LockError::Lock { path: self.path.clone(), source });
            }
        }
        Ok(self.held)
    }

    /// Fails if the file that is locked is not the one that others would open.
    pub fn check(&self) -> Result<(), LockError> {
        if self.is_in_place() { Ok(()) } else { Err(LockError::Replaced(self.path.clone())) }
    }

    /// Writes who holds the lock, for people. `holder` is a line without its end.
    pub fn sign(&mut self, holder: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(format!("{MARK}{holder}\n").as_bytes())
    }

    /// Who holds the lock, by its own words; `None` if it has not said so yet.
    pub fn holder(&self) -> Option<String> {
        let text = text(&self.file).ok()?;
        let line = text.strip_prefix(MARK)?.lines().next()?;
        Some(line.chars().filter(|character| !character.is_control()).collect())
    }

    /// Whether the path still leads to the file that is open here.
    fn is_in_place(&self) -> bool {
        let same =
            |there: fs::Metadata, here: fs::Metadata| (there.dev(), there.ino()) == (here.dev(), here.ino());
        match (fs::symlink_metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(here)) => same(there, here),
            _ => false,
        }
    }
}

/// Opens the file without changing what is in it: it may be another's.
fn open(path: &Path) -> Result<File, LockError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A link in a directory that all may write to could lead anywhere.
        .custom_flags(O_NOFOLLOW)
        .open(path);
    let failed = |source| LockError::Open { path: path.to_owned(), source };
    let file = opened.map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(LockError::NotAFile(path.to_owned()));
    }
    let text = text(&file).map_err(failed)?;
    // A holder that was killed while it wrote leaves a part of the mark.
    if !text.starts_with(MARK) && !MARK.starts_with(&text) {
        return Err(LockError::NotOurs(path.to_owned()));
    }
    Ok(file)
}

fn text(mut file: &File) -> io::Result<String> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(TEXT_MAX_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("demo.lock");
        (directory, path)
    }

    #[test]
    fn one_holds_it_and_the_next_has_it_when_the_first_is_gone() {
        let (_directory, path) = place();
        let mut first = Lock::open(&path).unwrap();
        assert!(first.is_held() && first.take().unwrap());
        assert_eq!(first.holder(), None);
        let mut second = Lock::open(&path).unwrap();
        assert!(!second.is_held() && !second.take().unwrap());
        first.sign("run: a much longer line than the next one").unwrap();
        first.sign("run: pid 7 on\u{7} web-1").unwrap();
        assert_eq!(second.holder().as_deref(), Some("run: pid 7 on web-1"));
        drop(first);
        assert!(second.take().unwrap());
        assert!(path.exists(), "the file stays");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_replaced_is_noticed_by_who_holds_it_and_by_who_waits() {
        let (_directory, path) = place();
        let first = Lock::open(&path).unwrap();
        let mut waiting = Lock::open(&path).unwrap();
        assert!(first.check().is_ok());
        fs::remove_file(&path).unwrap();
        assert!(matches!(first.check(), Err(LockError::Replaced(_))));
        let third = Lock::open(&path).unwrap();
        assert!(third.is_held(), "it is another file");
        assert!(matches!(first.check(), Err(LockError::Replaced(_))));
        drop(first);
        assert!(!waiting.take().unwrap(), "the lock of the first file is worth nothing");
        drop(third);
        assert!(waiting.take().unwrap());
        assert!(waiting.check().is_ok());
    }

    #[test]
    fn what_is_not_a_lock_file_is_refused_and_left_as_it_is() {
        let (directory, path) = place();
        fs::write(&path, "cluster = \"demo\"\n").unwrap();
        let error = Lock::open(&path).unwrap_err().to_string();
        assert!(error.contains("demo.lock: holds something else"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "cluster = \"demo\"\n");

        let link = directory.path().join("link.lock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Lock::open(&link), Err(LockError::Open { .. })));
        assert!(matches!(Lock::open(directory.path()), Err(LockError::Open { .. })));
        assert!(matches!(Lock::open(Path::new("/dev/null")), Err(LockError::NotAFile(_))));
        let error = Lock::open(&directory.path().join("missing/demo.lock")).unwrap_err().to_string();
        assert!(error.contains("missing/demo.lock: cannot be opened: No such file or directory"), "{error}");
    }

    #[test]
    fn half_a_name_is_a_lock_files() {
        let (_directory, path) = place();
        fs::write(&path, "force12-sch").unwrap();
        assert!(Lock::open(&path).unwrap().is_held());
    }
}
