//! Where a secret comes from: never the command line, where every process of the machine can read it.

use std::path::PathBuf;
use std::str::FromStr;
use std::{env, fs, io};

use crate::values::SecretArn;

/// Where to take a secret from, as the command line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `file:PATH`
    File(PathBuf),
    /// `env:NAME`
    Environment(String),
    /// `secret:ARN`: the host takes it, when it starts.
    Secret(SecretArn),
}

/// What a source gives.
#[derive(Debug)]
pub enum Given {
    /// The secret, less one newline at its end.
    Here(String),
    /// Where the host finds it.
    OnTheHost(SecretArn),
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The command line. Not repeated here: it could be the secret itself.
    #[error(
        "a secret comes from 'file:PATH', 'env:NAME' or 'secret:ARN', never from the command line itself, where every \
         process can read it"
    )]
    Unknown,
    /// What follows `secret:`.
    #[error("what follows 'secret:' {0}")]
    Arn(#[from] crate::values::ValueError),
    /// The file can't be read.
    #[error("{}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing of that size fits into user data.
    #[error("{}: larger than {FILE_MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// No such variable, or not a text.
    #[error("environment variable {0} is not set")]
    NotSet(String),
}

/// The most that is read of a file, in bytes: a `config.json` with many registries is a few thousand.
const FILE_MAX_BYTES: u64 = 64 * 1024;

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(words: &str) -> Result<Self, SourceError> {
        match words.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(("env", name)) if !name.is_empty() => Ok(Self::Environment(name.to_owned())),
            Some(("secret", arn)) => Ok(Self::Secret(arn.parse()?)),
            _ => Err(SourceError::Unknown),
        }
    }
}

impl Source {
    /// Takes the secret, or says where the host finds it.
    ///
    /// # Errors
    ///
    /// A file that can't be read or is too large, a variable that is not set.
    pub fn resolve(self) -> Result<Given, SourceError> {
        let text = match self {
            Self::Secret(arn) => return Ok(Given::OnTheHost(arn)),
            Self::Environment(name) => env::var(&name).map_err(|_| SourceError::NotSet(name))?,
            Self::File(path) => {
                let unreadable = |source| SourceError::File { path: path.clone(), source };
                if fs::metadata(&path).map_err(unreadable)?.len() > FILE_MAX_BYTES {
                    return Err(SourceError::TooLarge(path));
                }
                fs::read_to_string(&path).map_err(unreadable)?
            }
        };
        Ok(Given::Here(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_source_is_not_repeated() {
        let error = "0123456789abcdef0123456789abcdef0123NRAL"
            .parse::<Source>()
            .expect_err("a key is no source")
            .to_string();
        assert!(!error.contains("0123"), "{error}");
        let error = "secret:0123456789abcdef".parse::<Source>().expect_err("not an ARN").to_string();
        assert!(!error.contains("0123"), "{error}");
    }

    #[test]
    fn sources() {
        let source = |words: &str| words.parse::<Source>().expect(words);
        assert_eq!(source("file:/a b"), Source::File(PathBuf::from("/a b")));
        assert_eq!(source("env:KEY"), Source::Environment("KEY".to_owned()));
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:quay";
        assert_eq!(source(&format!("secret:{arn}")), Source::Secret(arn.parse().expect("an ARN")));
        assert!("file:".parse::<Source>().is_err());
    }
}
