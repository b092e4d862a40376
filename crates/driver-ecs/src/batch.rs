//! Starts of the same kind on different instances, gathered into calls of up to ten.
//!
//! A start waits a moment for others like it, and for a token of the quota; whatever has come by then goes with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use driver::DriverError;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::api::{Kind, STARTS};
use crate::book::Source;
use crate::core::Core;
use crate::error::CallError;
use crate::quota::{Family, Turn};
use crate::task::{Arn, Facts, Reserved};

/// For so long a start waits for others: the controller issues all actions of a plan within a millisecond, and a call takes
/// a hundred.
const GATHER: Duration = Duration::from_millis(2);

/// What a start comes to.
type Answer = Result<Facts, DriverError>;

struct Waiting {
    instance: Arn,
    behind: Option<Arn>,
    answer: oneshot::Sender<Answer>,
}

/// Starts that have not been sent.
#[derive(Default)]
pub(crate) struct Batches {
    /// Those that are there have somebody who sends them.
    waiting: Mutex<BTreeMap<(Turn, Kind), VecDeque<Waiting>>>,
}

impl Batches {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(Turn, Kind), VecDeque<Waiting>>> {
        self.waiting.lock().expect("nothing panics while holding it")
    }

    /// Takes out those that go with one call: no two on one instance, and none that nobody waits for any more. The line
    /// ends when it is empty.
    fn next(&self, line: &(Turn, Kind)) -> Option<Vec<Waiting>> {
        let mut waiting = self.waiting();
        let starts = waiting.get_mut(line)?;
        starts.retain(|start| !start.answer.is_closed());
        let mut instances = BTreeSet::new();
        let mut taken = Vec::new();
        let mut left = VecDeque::new();
        for start in starts.drain(..) {
            if taken.len() < STARTS && instances.insert(start.instance.clone()) {
                taken.push(start);
            } else {
                left.push_back(start);
            }
        }
        *starts = left;
        if taken.is_empty() {
            waiting.remove(line);
            return None;
        }
        Some(taken)
    }
}

impl Core {
    /// Starts a task, together with others; giving up the wait takes it out of the line if it has not been sent.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        kind: Kind,
        instance: Arn,
        behind: Option<Arn>,
        turn: Turn,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let line = (turn, kind);
        let is_first = {
            let mut waiting = self.batches.waiting();
            let is_first = !waiting.contains_key(&line);
            waiting.entry(line.clone()).or_default().push_back(Waiting { instance, behind, answer });
            is_first
        };
        if is_first {
            tokio::spawn(Arc::clone(self).send(line));
        }
        answered
            .await
            .unwrap_or_else(|_| Err(self.errors.outcome_unknown("start", "whoever was to send it has died")))
    }

    async fn send(self: Arc<Self>, line: (Turn, Kind)) {
        loop {
            sleep(GATHER).await;
            let bucket = self.api.quotas.of(Family::Modify);
            bucket.take(line.0).await;
            let Some(starts) = self.batches.next(&line) else {
                bucket.give_back();
                return;
            };
            // The next do not wait for the answer.
            tokio::spawn(Arc::clone(&self).start_all(line.1.clone(), starts));
        }
    }

    async fn start_all(self: Arc<Self>, kind: Kind, starts: Vec<Waiting>) {
        let instances: Vec<Arn> = starts.iter().map(|start| start.instance.clone()).collect();
        let answer = self.api.start_task(&kind, &instances).await;
        let (tasks, failures) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if matches!(error, CallError::Unclear(_)) {
                    self.suspect(&instances);
                }
                for start in starts {
                    let _ = start.answer.send(Err(self.errors.call("start", &error)));
                }
                return;
            }
        };
        let reserved = self.revisions.reserved(&kind.revision);
        let mut begun: BTreeMap<Arn, Facts> = BTreeMap::new();
        for task in &tasks {
            let Some(mut facts) = Facts::of_answer(task, &self.config.cluster) else { continue };
            // We know what we have asked for, whatever of it the answer repeats.
            facts.identity = Some(kind.identity.clone());
            facts.started_by = Some(self.api.started_by.clone());
            facts.revision = Some(kind.revision.clone());
            if facts.reserved == Reserved::default() {
                facts.reserved = reserved.unwrap_or_default();
            }
            if let Some(instance) = &facts.instance {
                begun.insert(instance.clone(), facts.clone());
            }
            self.book.heard(&facts, Source::Answer);
        }
        for start in starts {
            let failure = failures.iter().find(|failure| failure.arn() == Some(start.instance.as_ref()));
            let answer = match (begun.remove(&start.instance), failure) {
                (Some(facts), _) => {
                    self.book.begun(&facts.arn, start.behind.clone());
                    Ok(facts)
                }
                (None, Some(failure)) => {
                    let reason = failure.reason().unwrap_or("no reason");
                    if matches!(reason, "AGENT") {
                        self.book.agent_is_away(&start.instance);
                    }
                    if matches!(reason, "AGENT" | "MISSING" | "INACTIVE" | "ATTRIBUTE") {
                        self.look_at_instances.notify_one();
                    }
                    let name = self.book.host_name(&start.instance);
                    Err(self.errors.not_placed(&name, reason, failure.detail()))
                }
                (None, None) => {
                    self.suspect(std::slice::from_ref(&start.instance));
                    Err(self.errors.outcome_unknown(
                        "start",
                        format!("the answer says nothing of {}", self.book.host_name(&start.instance)),
                    ))
                }
            };
            let _ = start.answer.send(answer);
        }
        self.describe.notify_one();
    }

    /// Something may have begun there: it is listed until that would have shown.
    fn suspect(&self, instances: &[Arn]) {
        let until = Instant::now() + Duration::from_millis(self.config.limits.settle_ms);
        for instance in instances {
            self.book.suspect(instance, until);
        }
    }
}
