//! Secrets kept out of messages. None is put into one on purpose; but a YAML reader or systemd-analyze may quote the
//! line that it does not understand.

use crate::settings;

/// What stands for a secret in a message.
const MASK: &str = "(not shown)";

/// The secrets that a text holds, to be taken out of messages about it.
#[derive(Debug, Default)]
pub(crate) struct Mask(Vec<String>);

impl Mask {
    /// The secrets of user data, or of one of its files or units.
    #[must_use]
    pub(crate) fn of(text: &str) -> Self {
        let mut secrets = settings::secrets(text);
        // What contains another is replaced first.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// A message without them.
    #[must_use]
    pub(crate) fn apply(&self, message: &str) -> String {
        self.0.iter().fold(message.to_owned(), |message, secret| message.replace(secret, MASK))
    }
}
