//! What a changed config file changes while the service runs.

use std::path::Path;

use service_kit::reload::{Apply, Refused, needs_no_restart};

use crate::config::{self, Config};
use crate::source::{Begin, Source};

/// The file as it is in force, and the source that it is for.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) source: Source,
    pub(crate) config: Config,
}

impl Apply for Reload {
    type Config = Config;

    fn read(path: &Path) -> Result<Config, Refused> {
        config::load(path).map_err(|error| Refused::File(error.to_string()))
    }

    /// A key whose table has changed begins anew with what the file says, whatever was set over HTTP; one whose table
    /// has not goes on with it. What is held stays held.
    async fn apply(&mut self, config: Config) -> Result<bool, Refused> {
        let before = &self.config;
        needs_no_restart(&[
            ("listen", config.listen != before.listen),
            ("token_file", config.token_file != before.token_file),
            ("allowed_hosts", config.allowed_hosts != before.allowed_hosts),
        ])?;
        let written = |config: &Config| -> Vec<_> {
            config.keys.iter().map(|key| (key.name.clone(), key.written.clone())).collect()
        };
        let before = written(before);
        if written(&config) == before {
            return Ok(false);
        }
        let keys = config.keys.iter().map(|key| {
            let same = before.iter().any(|(name, written)| *name == key.name && *written == key.written);
            (key.name.clone(), key.settings.clone(), if same { Begin::IfNew } else { Begin::Anew })
        });
        self.source.configure(keys.collect());
        self.config = config;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use api_types::Timestamp;
    use api_types::demand::DemandDocument;
    use api_types::generator::GeneratorChange;

    use super::*;

    async fn apply(reload: &mut Reload, path: &Path) -> Result<bool, Refused> {
        reload.apply(Reload::read(path)?).await
    }

    const FILE: &str =
        "[[demand]]\nkey = \"a\"\nmin = 3\nmax = 3\n[[demand]]\nkey = \"b\"\nmin = 5\nmax = 5\n";

    #[tokio::test]
    async fn a_changed_file_is_applied_whole_or_not_at_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write(FILE);
        let config = config::load(file.path()).unwrap();
        let generators = config.keys.iter().map(|key| (key.name.clone(), key.settings.clone())).collect();
        let source = Source::new(generators, 1, || Timestamp::from_epoch_ms(0));
        let mut reload = Reload { source: source.clone(), config };
        let demand = || {
            let document: DemandDocument = serde_json::from_str(&source.subscribe().borrow().body).unwrap();
            serde_json::to_string(&document.demand).unwrap()
        };

        write(&format!("# a remark\n{FILE}"));
        assert_eq!(apply(&mut reload, file.path()).await, Ok(false), "a remark is no change");
        let by_hand = GeneratorChange { min: Some(1), max: Some(1), ..GeneratorChange::default() };
        source.set(Some("a"), by_hand.clone()).unwrap();
        source.set(Some("b"), by_hand).unwrap();
        write(&FILE.replace('5', "6"));
        assert_eq!(apply(&mut reload, file.path()).await, Ok(true));
        assert_eq!(demand(), r#"{"a":1,"b":6}"#, "only what has changed begins anew");

        for (text, expected) in [
            (FILE.replace("min = 3", "min = 4"), ":3:7: demand.a.min: 4 is above max (3)"),
            (FILE.replace("key", "kee"), "unknown key `kee`"),
            (format!("listen = \"127.0.0.1:1\"\n{FILE}"), "listen cannot change while the service runs"),
            (String::new(), "nothing is set"),
        ] {
            write(&text);
            let refused = apply(&mut reload, file.path()).await.unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            assert_eq!(demand(), r#"{"a":1,"b":6}"#, "what was there holds");
        }
        write(&FILE.replace("key = \"b\"\nmin = 5\nmax = 5", "key = \"c\"\nmin = 7\nmax = 7"));
        assert_eq!(apply(&mut reload, file.path()).await, Ok(true), "mended, it is applied");
        assert_eq!(demand(), r#"{"a":1,"c":7}"#);
    }
}
