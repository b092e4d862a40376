//! The operator's token: what is one, where it comes from, and that it is never shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file::{self, Access, FileError};

/// Holds the token itself.
pub const TOKEN_VARIABLE: &str = "FORCE12_TOKEN";
/// Holds the path of a file with the token.
pub const TOKEN_FILE_VARIABLE: &str = "FORCE12_TOKEN_FILE";

/// The fewest characters of a token: 16 random letters and digits carry more than 80 bits.
pub const TOKEN_MIN_CHARS: usize = 16;
/// The most characters of a token: longer than any that a tool makes, and it fits a header.
pub const TOKEN_MAX_CHARS: usize = 512;
/// The most bytes of a token file, white space included.
const TOKEN_FILE_MAX_BYTES: u64 = 4096;

/// Why the operator's token is refused. The text never holds the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The token file is refused.
    #[error("token file {0}")]
    File(#[from] FileError),
    /// What is to be the token cannot be one.
    #[error("{place}: {what}; make one with: openssl rand -hex 32")]
    Unfit {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        what: String,
    },
}

/// A secret that no log shows: its `Debug` is redacted, and it has no `Display`.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The secret itself, to be sent and not to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Checks what is to be the token: white space at the ends is cut; what is left has [`TOKEN_MIN_CHARS`] to
    /// [`TOKEN_MAX_CHARS`] visible ASCII characters. `place` is where it came from, for the error.
    pub fn token(text: &str, place: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let unfit = |what: String| TokenError::Unfit { place: place.to_owned(), what };
        if text.is_empty() {
            return Err(unfit("the token is empty".to_owned()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unfit(
                "the token holds white space or characters other than visible ASCII".to_owned(),
            ));
        }
        if !(TOKEN_MIN_CHARS..=TOKEN_MAX_CHARS).contains(&text.len()) {
            return Err(unfit(format!(
                "the token has {} characters, it must have {TOKEN_MIN_CHARS} to {TOKEN_MAX_CHARS}",
                text.len()
            )));
        }
        Ok(Self(text.into()))
    }

    /// Reads a token from a file that its owner, and at most its group, may read, and its owner alone may change.
    pub fn token_from_file(path: &Path) -> Result<Self, TokenError> {
        let content = file::read(path, TOKEN_FILE_MAX_BYTES, Access::Private)?;
        // What is no UTF-8 is no ASCII either, and is refused as that.
        Self::token(&String::from_utf8_lossy(&content), &format!("token file {}", path.display()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(redacted)")
    }
}

/// Where the operator's token may come from; the first of the three that is given counts.
#[derive(Clone, Debug, Default)]
pub struct TokenSource {
    /// What `FORCE12_TOKEN` holds.
    pub value: Option<Secret>,
    /// What `FORCE12_TOKEN_FILE` holds.
    pub file: Option<PathBuf>,
    /// The config's `token_file`.
    pub config_file: Option<PathBuf>,
}

impl TokenSource {
    /// From this process's environment, then the config's key.
    pub fn from_env(config_file: Option<&Path>) -> Self {
        let value = std::env::var(TOKEN_VARIABLE).ok().map(|value| Secret(value.into()));
        let file = std::env::var_os(TOKEN_FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { value, file, config_file: config_file.map(Path::to_owned) }
    }

    /// The file that the token comes from, if it comes from one.
    pub(crate) fn path(&self) -> Option<&Path> {
        if self.value.is_some() { None } else { self.file.as_deref().or(self.config_file.as_deref()) }
    }

    /// The token, or `None` if none is configured. A source that is given and unfit is an error, never skipped.
    pub fn read(&self) -> Result<Option<Secret>, TokenError> {
        if let Some(value) = &self.value {
            return Secret::token(value.expose(), TOKEN_VARIABLE).map(Some);
        }
        self.path().map(Secret::token_from_file).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::NamedTempFile;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn token_file(text: &str, mode: u32) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_token_file_is_for_its_owner_and_at_most_its_group_to_read() {
        for mode in [0o600, 0o400, 0o640, 0o440] {
            let file = token_file(" 0123456789abcdef\n", mode);
            assert_eq!(Secret::token_from_file(file.path()).unwrap().expose(), TOKEN, "{mode:03o}");
        }
        for mode in [0o604, 0o444, 0o644, 0o610, 0o620, 0o660, 0o666] {
            let file = token_file(TOKEN, mode);
            let error = Secret::token_from_file(file.path()).unwrap_err().to_string();
            let wanted = format!("(mode {mode:03o}); run: chmod 600 '{}', or mount", file.path().display());
            assert!(error.contains(&wanted) && error.contains("defaultMode: 0440"), "{error}");
        }
        assert!(matches!(
            Secret::token_from_file(Path::new("/")),
            Err(TokenError::File(FileError::NotAFile(_)))
        ));
        assert!(matches!(
            Secret::token_from_file(Path::new("/nonexistent")),
            Err(TokenError::File(FileError::Read { .. }))
        ));
    }

    #[test]
    fn an_unfit_token_is_refused_and_never_shown() {
        for text in ["", " \n", "short-secret", "sixteen secret ch", "sécret-sécret-sécret", &"x".repeat(513)]
        {
            let error = Secret::token(text, "FORCE12_TOKEN").unwrap_err().to_string();
            assert!(error.starts_with("FORCE12_TOKEN: the token "), "{error}");
            assert!(text.trim().is_empty() || !error.contains(text.trim()), "{error}");
        }
        assert!(!format!("{:?}", Secret::token(TOKEN, "test").unwrap()).contains(TOKEN));
    }

    #[test]
    fn the_environment_comes_before_the_config_and_is_never_skipped() {
        let file = token_file("of-the-variables-file", 0o600);
        let config_file = token_file("of-the-configs-file", 0o600);
        let mut source = TokenSource {
            value: Some(Secret("of-the-variable-itself".into())),
            file: Some(file.path().to_owned()),
            config_file: Some(config_file.path().to_owned()),
        };
        let read =
            |source: &TokenSource| source.read().map(|token| token.map(|token| token.expose().to_owned()));
        assert_eq!(read(&source).unwrap().unwrap(), "of-the-variable-itself");
        source.value = Some(Secret("".into()));
        assert!(read(&source).is_err());
        source.value = None;
        assert_eq!(read(&source).unwrap().unwrap(), "of-the-variables-file");
        source.file = None;
        assert_eq!(read(&source).unwrap().unwrap(), "of-the-configs-file");
        source.config_file = None;
        assert_eq!(read(&source).unwrap(), None);
    }
}
