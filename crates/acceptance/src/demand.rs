//! What was wanted, and when: the demand document's changes, by long poll, with the times of receipt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use api_types::demand::read_document;
use reqwest::StatusCode;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::http;
use crate::observer::now_ns;
use crate::timeline::Steps;

/// Records one demand source from the moment it is made.
pub struct DemandRecorder {
    record: Arc<Mutex<Record>>,
    changed: watch::Receiver<u64>,
    follower: JoinHandle<()>,
}

#[derive(Default)]
struct Record {
    by_key: BTreeMap<String, Steps>,
    lost: Option<String>,
}

impl DemandRecorder {
    /// Begins to record the document at `url`, and returns once its first value is there.
    pub async fn follow(url: String) -> Result<Self> {
        let record = Arc::new(Mutex::new(Record::default()));
        let (changes, changed) = watch::channel(0);
        let kept = Arc::clone(&record);
        let follower = tokio::spawn(async move {
            let Err(error) = poll(&url, &kept, &changes).await;
            kept.lock().unwrap_or_else(PoisonError::into_inner).lost = Some(format!("{error:#}"));
            changes.send_modify(|count| *count += 1);
        });
        let recorder = Self { record, changed, follower };
        recorder.until("the first demand", Duration::from_secs(10), |by_key| !by_key.is_empty()).await?;
        Ok(recorder)
    }

    /// The demand of `key` so far.
    pub fn of(&self, key: &str) -> Result<Steps> {
        self.read(|by_key| by_key.get(key).cloned().unwrap_or_default())
    }

    /// Waits for the next change of any key, at most `bound`.
    pub async fn next_change(&self, bound: Duration) -> Result<()> {
        let mut changed = self.changed.clone();
        changed.borrow_and_update();
        tokio::time::timeout(bound, changed.changed())
            .await
            .with_context(|| format!("demand did not change within {} ms", bound.as_millis()))?
            .context("the demand recorder has ended")
    }

    async fn until(
        &self,
        what: &str,
        bound: Duration,
        holds: impl Fn(&BTreeMap<String, Steps>) -> bool,
    ) -> Result<()> {
        let mut changed = self.changed.clone();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if self.read(&holds)? {
                    return Ok(());
                }
                changed.changed().await.context("the demand recorder has ended")?;
            }
        };
        match tokio::time::timeout(bound, wait).await {
            Ok(held) => held,
            Err(_) => bail!("{what}: not seen within {} ms", bound.as_millis()),
        }
    }

    fn read<T>(&self, reader: impl FnOnce(&BTreeMap<String, Steps>) -> T) -> Result<T> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &record.lost {
            bail!("the demand source is lost, so the record is not complete: {reason}");
        }
        Ok(reader(&record.by_key))
    }
}

impl Drop for DemandRecorder {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Polls until something goes wrong.
async fn poll(
    url: &str,
    record: &Mutex<Record>,
    changes: &watch::Sender<u64>,
) -> Result<std::convert::Infallible> {
    let client = http::client()?;
    let mut etag = None;
    loop {
        let mut request = client.get(url).header("prefer", "wait=5");
        if let Some(etag) = &etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let answer = request.send().await.with_context(|| format!("get {url}"))?;
        let received = now_ns();
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => continue,
            status => bail!("{url} answered {status}"),
        }
        etag = Some(answer.headers().get(ETAG).with_context(|| format!("{url} gave no etag"))?.clone());
        let body = answer.bytes().await.with_context(|| format!("read {url}"))?;
        let document = read_document(&body).map_err(|wrong| anyhow!("{url}: {wrong}"))?;
        {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, value) in document.demand {
                let value = value.ok().flatten().map_or(UNKNOWN, i64::from);
                record.by_key.entry(key).or_default().push(received, value);
            }
        }
        changes.send_modify(|count| *count += 1);
    }
}

/// What stands in the record for an unknown demand.
pub const UNKNOWN: i64 = -1;
