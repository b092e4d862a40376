//! What a changed config file changes while the service runs.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use service_kit::reload::{Apply, Refused, needs_no_restart};
use tokio::sync::watch;

use crate::config::{self, Settings};
use crate::follow;
use crate::history::Ring;

/// From asking for the scheduler's stream to its first event, which it sends at once.
const FIRST_EVENT_MAX: Duration = Duration::from_secs(2);

/// How long the scheduler may take, by these settings.
pub fn follow_limits(settings: &Settings) -> follow::Limits {
    follow::Limits { first_event: FIRST_EVENT_MAX, silence: Duration::from_millis(settings.silence_ms) }
}

/// The settings in force, and what they can change.
#[derive(Debug)]
pub struct Reload {
    /// As they are in force.
    pub settings: Settings,
    /// Whose limits are changed.
    pub history: Arc<Mutex<Ring>>,
    /// See [`follow_limits`].
    pub follow: watch::Sender<follow::Limits>,
}

impl Apply for Reload {
    type Config = Settings;

    fn read(path: &Path) -> Result<Settings, Refused> {
        // What is wrong may be mended in the file of certificates that it names.
        config::load(path).map_err(|error| Refused::Now(error.to_string()))
    }

    async fn apply(&mut self, settings: Settings) -> Result<bool, Refused> {
        let before = &self.settings;
        if settings == *before {
            return Ok(false);
        }
        needs_no_restart(&[
            ("listen", settings.listen != before.listen),
            ("scheduler_url", settings.scheduler_urls != before.scheduler_urls),
            ("demand_url", settings.demand_url != before.demand_url),
            ("ca_file", settings.ca_file != before.ca_file),
            ("token_file", settings.token_file != before.token_file),
            ("allowed_hosts", settings.allowed_hosts != before.allowed_hosts),
        ])?;
        self.history.lock().unwrap_or_else(PoisonError::into_inner).set_limits(settings.history);
        self.follow.send_replace(follow_limits(&settings));
        self.settings = settings;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use api_types::Timestamp;

    use super::*;
    use crate::testing::snapshot;

    async fn apply(reload: &mut Reload, path: &Path) -> Result<bool, Refused> {
        reload.apply(Reload::read(path)?).await
    }

    const FILE: &str = "scheduler_url = \"http://h\"\n[history]\nsamples_max = 10\n";

    #[tokio::test]
    async fn a_changed_file_is_applied_whole_or_not_at_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write(FILE);
        let settings = config::load(file.path()).unwrap();
        let mut ring = Ring::new(settings.history);
        for second in 0..10 {
            ring.push(&snapshot("epoch", second), Timestamp::from_epoch_ms(second * 1_000));
        }
        let history = Arc::new(Mutex::new(ring));
        let kept = |window_ms: u64| {
            let window = history.lock().unwrap().window(Some(window_ms), Timestamp::from_epoch_ms(9_000));
            window.into_chunks().map(|chunk| chunk.len()).sum::<usize>()
        };
        let follow = watch::Sender::new(follow_limits(&settings));
        let mut reload = Reload { settings, history: Arc::clone(&history), follow };
        let all = kept(60_000);

        assert_eq!(apply(&mut reload, file.path()).await, Ok(false));
        for (text, expected) in [
            (
                FILE.replace("samples_max = 10", "samples_max = 9"),
                ":3:15: history.samples_max: 9 is out of range",
            ),
            (FILE.replace("//h", "//other"), "scheduler_url cannot change while the service runs"),
            (format!("silence_ms = 600\nlisten = \"127.0.0.1:1\"\n{FILE}"), "listen cannot change"),
            (FILE.replace("history", "histery"), "did you mean `history`?"),
        ] {
            write(&text);
            let refused = apply(&mut reload, file.path()).await.unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            assert_eq!(kept(60_000), all, "what was there holds");
            assert_eq!(reload.follow.borrow().silence, Duration::from_secs(5));
        }
        write(&format!("ca_file = \"/nonexistent/ca.pem\"\n{FILE}"));
        assert!(matches!(apply(&mut reload, file.path()).await, Err(Refused::Now(_))), "it may come later");
        write("silence_ms = 600\nscheduler_url = \"http://h\"\nhistory = { window_ms = 2000 }\n");
        assert_eq!(apply(&mut reload, file.path()).await, Ok(true));
        assert_eq!(reload.follow.borrow().silence, Duration::from_millis(600));
        assert!(kept(60_000) < all, "what is too old is gone at once");
    }
}
