//! Looking: what is listed and looked up, and when.
//!
//! A listing shows which tasks there are; what is not known yet, or is missing, is looked up by name. What is under way is
//! looked up again and again, quickly, unless events tell of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::api::{PAGE, Which};
use crate::book::Source;
use crate::core::{Core, Looks};
use crate::error::CallError;
use crate::quota::Turn;
use crate::task::{Arn, Facts};

/// Pages of one listing at most: a million tasks. It ends a list that goes round in a circle.
const PAGES_MAX: usize = 10_000;
/// Pages of tasks that have stopped, or are about to, of one family, at the beginning. What is beyond is found once it
/// matters, by what ECS answers to a start.
const STOPPED_PAGES_MAX: usize = 20;
/// Pages that are looked up at once.
const PAGES_AT_ONCE: usize = 4;
/// What events have told, or have not, is compared with a listing this often.
const LIST_WITH_EVENTS: Duration = Duration::from_mins(5);
/// Each page of a listing takes this long of the next one's wait at least: a twentieth of the quota.
const PAGE_COSTS: Duration = Duration::from_secs(1);
/// With events: two calls a minute.
const PAGE_COSTS_WITH_EVENTS: Duration = Duration::from_secs(30);
/// Between two listings, and between two rounds of what is looked up, whatever the surprise.
const SPACING: Duration = Duration::from_millis(50);
/// An instance on which something may have begun without an answer is listed this often.
const SUSPECTS_EVERY: Duration = Duration::from_secs(1);
/// After a look that has gone wrong, with jitter.
const AGAIN: Duration = Duration::from_secs(2);

impl Core {
    /// All pages; how many there were.
    async fn list(
        &self,
        which: &Which,
        pages_max: usize,
        turn: Turn,
    ) -> Result<(BTreeSet<Arn>, usize), CallError> {
        let mut arns = BTreeSet::new();
        let mut next = None;
        for page in 1..=pages_max {
            let (more, token) = self.api.list_tasks(which, next, turn).await?;
            arns.extend(more.into_iter().map(Arn::from));
            if token.is_none() {
                return Ok((arns, page));
            }
            next = token;
        }
        Ok((arns, pages_max))
    }

    /// One listing of all that is ours and is to run.
    async fn list_ours(&self, turn: Turn) -> Result<usize, CallError> {
        let began = Instant::now();
        let (arns, pages) =
            self.list(&Which::StartedBy(self.api.started_by.clone()), PAGES_MAX, turn).await?;
        self.book.listed(&arns, began);
        self.describe.notify_one();
        Ok(pages)
    }

    /// One listing of what is still on its way out.
    async fn list_stopping(&self) -> Result<(), CallError> {
        let families: BTreeSet<String> =
            self.wanted().task_definitions.iter().map(|name| family(name).to_owned()).collect();
        for family in families {
            let (arns, _) = self.list(&Which::Stopped(family), STOPPED_PAGES_MAX, Turn::Second).await?;
            self.book.seen(&arns);
        }
        self.describe.notify_one();
        Ok(())
    }

    async fn describe_page(&self, page: &[Arn]) -> Result<(), CallError> {
        let (tasks, missing) = self.api.describe_tasks(page, Turn::First).await?;
        for task in &tasks {
            if let Some(facts) = Facts::of_answer(task, &self.config.cluster) {
                if facts.instance.as_ref().is_some_and(|arn| self.book.host_arn_unknown(arn)) {
                    self.look_at_instances.notify_one();
                }
                self.book.heard(&facts, Source::Look);
            }
        }
        for failure in &missing {
            if let (Some(arn), Some("MISSING")) = (failure.arn(), failure.reason()) {
                self.book.not_found(&Arn::from(arn));
            }
        }
        Ok(())
    }
}

/// The family that a task definition is named by: of `family`, `family:7` or `arn:…:task-definition/family:7`.
fn family(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.split(':').next().unwrap_or(name)
}

/// Lists, for ever.
pub(crate) async fn follow_list(core: Arc<Core>) {
    adopt(&core).await;
    core.book.ready();
    core.look_at_instances.notify_one();
    let poll = Duration::from_millis(core.config.limits.poll_ms);
    loop {
        let began = Instant::now();
        let answer = core.list_ours(Turn::Last).await;
        let period = match core.noted(Looks::Listing, began, answer) {
            None => core.api.jittered(AGAIN),
            Some(pages) => {
                let told = core.listens() && core.book.events_tell().0;
                let (period, costs) =
                    if told { (LIST_WITH_EVENTS, PAGE_COSTS_WITH_EVENTS) } else { (poll, PAGE_COSTS) };
                period.max(costs * u32::try_from(pages).unwrap_or(u32::MAX))
            }
        };
        sleep(SPACING).await;
        let _ = timeout(period, core.list.notified()).await;
    }
}

/// Ends when everything that there is has been seen, whatever another driver before this one has asked for without waiting.
async fn adopt(core: &Core) {
    let settled_at = Instant::now() + Duration::from_millis(core.config.limits.settle_ms);
    let mut has_stopping = false;
    loop {
        let began = Instant::now();
        let answer = async {
            core.list_ours(Turn::Second).await?;
            // Which families there are is known once it has been said what is wanted.
            if !has_stopping && began >= settled_at {
                core.list_stopping().await?;
                has_stopping = true;
            }
            Ok(())
        };
        let answer = answer.await;
        if core.noted(Looks::Listing, began, answer).is_none() {
            sleep(core.api.jittered(AGAIN)).await;
            continue;
        }
        while !core.book.all_known() || !core.book.hosts_seen() {
            sleep(SPACING).await;
        }
        if began >= settled_at {
            return;
        }
        sleep_until(settled_at).await;
    }
}

/// Looks up what is due, for ever.
pub(crate) async fn follow_tasks(core: Arc<Core>) {
    let health_every = Duration::from_millis(core.config.limits.refresh_ms);
    loop {
        let (due, next) = core.book.due(core.listens(), health_every);
        if due.is_empty() {
            let woken = core.describe.notified();
            match next {
                Some(next) => drop(tokio::time::timeout_at(next, woken).await),
                None => woken.await,
            }
            continue;
        }
        let began = Instant::now();
        let pages: Vec<Vec<Arn>> = due.chunks(PAGE).map(<[Arn]>::to_vec).collect();
        let answers: Vec<Result<(), CallError>> = stream::iter(pages)
            .map(|page| {
                let core = Arc::clone(&core);
                async move { core.describe_page(&page).await }
            })
            .buffer_unordered(PAGES_AT_ONCE)
            .collect()
            .await;
        let failed = answers.into_iter().find(Result::is_err).unwrap_or(Ok(()));
        if core.noted(Looks::Tasks, began, failed).is_some() {
            sleep(SPACING).await;
        } else {
            sleep(core.api.jittered(AGAIN)).await;
        }
        core.publish();
    }
}

/// Lists the instances on which something may have begun without an answer, for ever.
pub(crate) async fn follow_suspects(core: Arc<Core>) {
    loop {
        sleep(SUSPECTS_EVERY).await;
        for instance in core.book.suspects() {
            // What goes wrong here is told by the other looks.
            if let Ok((arns, _)) = core.list(&Which::On(instance), PAGES_MAX, Turn::Second).await {
                core.book.seen(&arns);
                core.describe.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_read_from_every_way_to_name_a_task_definition() {
        for name in ["web", "web:7", "arn:aws:ecs:eu-west-1:123456789012:task-definition/web:7"] {
            assert_eq!(family(name), "web", "{name}");
        }
    }
}
