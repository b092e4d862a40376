//! The engine's events, followed through its restarts.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use driver::{ContainerId, Event};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::connection::Connection;
use crate::error::{Errors, chain};
use crate::labels::CLUSTER;
use crate::lagging::Lagging;
use crate::tale::Tale;
use crate::told::Told;

/// What can change an observation. The rest (exec, attach, resize, every health check) would only wake us. The last is
/// told as `health_status: healthy`; with it among them the engine takes each for the beginning of an event's name.
const ACTIONS: [&str; 8] =
    ["create", "start", "pause", "unpause", "die", "destroy", "rename", "health_status"];
/// Those that the engine tells of before its list shows them ([`Lagging`]). It is the other way round with the rest,
/// and looking at a container that is just being started would take as long as the start.
const TOLD_EARLY: [&str; 3] = ["pause", "unpause", "die"];
/// After these there is no process.
const ENDED: [&str; 2] = ["die", "destroy"];
/// After this its processes do not run.
const SUSPENDED: &str = "pause";
/// After this they do again.
const RESUMED: &str = "unpause";
/// Milliseconds before the first attempt to connect again; doubles with each failure.
const BACKOFF_MIN_MS: u64 = 50;
/// At most; an engine that is back should be seen to be soon, and an attempt costs little.
const BACKOFF_MAX_MS: u64 = 2_000;
/// An engine that is hung, or cut off, keeps its connections: what tells is that it does not answer.
const PING_EVERY_MS: u64 = 5_000;
/// For one answer, to a ping or to the request for events.
const ANSWER_MS: u64 = 2_000;
/// A stream that has lasted for so long ends an outage. One that breaks off before does not: an engine, or what is in
/// between, that accepts the request and ends it at once is asked ever more seldom, and told of once.
const LASTS_MS: u64 = 5_000;
/// The engine's clock is read to the second, and its list of past events goes by it: this far back covers what
/// happened between that reading and the subscription.
const LOOK_BACK: Duration = Duration::from_secs(2);

/// The engine's events of one cluster's containers, followed once for all who wait for any of them.
///
/// Whoever waits for a container says so first ([`Events::listen`]) and looks at it then: an event that came before
/// is seen by the look, and one that comes later is heard. While the engine cannot be followed, looking is all there
/// is.
pub(crate) struct Events {
    follower: Follower,
    following: OnceLock<AbortHandle>,
}

#[derive(Default)]
struct Shared {
    progress: watch::Sender<Progress>,
    /// What is waited for; as many at most as there are calls under way.
    awaited: Mutex<HashMap<ContainerId, watch::Sender<News>>>,
}

/// What has been heard, by number: whoever is slow catches up in one step.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    live: bool,
    connections: u64,
    changes: u64,
}

/// Of one container.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// Its process is gone. That is final: nothing of ours starts a container twice.
    ended: bool,
    /// The last that was heard of it is that it was suspended.
    suspended: bool,
}

impl Events {
    /// Follows nothing before somebody listens.
    pub(crate) fn new(connection: Connection, errors: Errors, lagging: Lagging, cluster: &str) -> Self {
        let follower = Follower {
            connection,
            errors,
            lagging,
            shared: Arc::default(),
            label: format!("{CLUSTER}={cluster}"),
            failures: 0,
            heard_to_ns: 0,
        };
        Self { follower, following: OnceLock::new() }
    }

    /// Says when an observation is due, for ever.
    pub(crate) fn changes(self: &Arc<Self>) -> BoxStream<'static, Event> {
        self.follow();
        let heard = self.follower.shared.progress.subscribe();
        let reader = Reader { heard, told: Progress::default(), _events: Arc::clone(self) };
        stream::unfold(reader, |mut reader| async move { Some((reader.next().await, reader)) }).boxed()
    }

    /// What happens to this container from now on.
    pub(crate) fn listen(&self, id: &ContainerId) -> Listener {
        self.follow();
        let shared = Arc::clone(&self.follower.shared);
        let news = shared.awaited().entry(id.clone()).or_default().subscribe();
        Listener { shared, id: id.clone(), news }
    }

    fn follow(&self) {
        self.following.get_or_init(|| tokio::spawn(self.follower.clone().run()).abort_handle());
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(following) = self.following.get() {
            following.abort();
        }
    }
}

impl Shared {
    fn awaited(&self) -> MutexGuard<'_, HashMap<ContainerId, watch::Sender<News>>> {
        self.awaited.lock().expect("nothing panics while holding it")
    }

    fn connected(&self) {
        self.progress.send_modify(|progress| {
            progress.live = true;
            progress.connections += 1;
        });
        for news in self.awaited().values() {
            // It may have been resumed meanwhile.
            news.send_modify(|news| news.suspended = false);
        }
    }

    fn disconnected(&self) {
        self.progress.send_modify(|progress| progress.live = false);
    }

    /// Takes in that something has happened to a container, whatever it was.
    fn something_changed(&self, id: &ContainerId) {
        self.changed(id, "");
    }

    /// Takes in what has happened to a container.
    fn changed(&self, id: &ContainerId, action: &str) {
        self.progress.send_modify(|progress| progress.changes += 1);
        if let Some(news) = self.awaited().get(id) {
            news.send_modify(|news| {
                news.ended |= ENDED.contains(&action);
                news.suspended = (news.suspended || action == SUSPENDED) && action != RESUMED;
            });
        }
    }
}

/// One who waits for observations that are due.
struct Reader {
    heard: watch::Receiver<Progress>,
    told: Progress,
    /// They are followed for as long as anybody reads.
    _events: Arc<Events>,
}

impl Reader {
    async fn next(&mut self) -> Event {
        loop {
            let heard = *self.heard.borrow_and_update();
            if heard.connections != self.told.connections {
                // It comes first, and covers all that was heard by then; not while the engine is away again.
                if heard.live {
                    self.told = heard;
                    return Event::Gap;
                }
            } else if heard.changes != self.told.changes {
                self.told = heard;
                return Event::Changed;
            }
            self.heard.changed().await.expect("the sender is kept beside the receiver");
        }
    }
}

/// One who waits for a container.
pub(crate) struct Listener {
    shared: Arc<Shared>,
    id: ContainerId,
    news: watch::Receiver<News>,
}

impl Listener {
    /// Ends when the engine tells that the container's process is gone, or was told so since this listens.
    pub(crate) async fn ended(&self) {
        let mut news = self.news.clone();
        news.wait_for(|news| news.ended).await.expect("the sender is kept while anybody listens");
    }

    /// Ends when the engine has told that the container is suspended, since this listens and after anything else.
    pub(crate) async fn suspended(&self) {
        let mut news = self.news.clone();
        news.wait_for(|news| news.suspended).await.expect("the sender is kept while anybody listens");
    }

    /// Ends when anything has happened to the container, or may have been missed, since this was last asked.
    pub(crate) async fn anything(&mut self) {
        self.news.changed().await.expect("the sender is kept while anybody listens");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut awaited = self.shared.awaited();
        // Whoever else listens comes and goes under the same lock.
        if awaited.get(&self.id).is_some_and(|news| news.receiver_count() == 1) {
            awaited.remove(&self.id);
        }
    }
}

#[derive(Clone)]
struct Follower {
    connection: Connection,
    errors: Errors,
    lagging: Lagging,
    shared: Arc<Shared>,
    label: String,
    /// In a row.
    failures: u32,
    /// By the engine's clock, since 1970. What is told of an earlier moment is told again, or late.
    heard_to_ns: u64,
}

/// An established stream.
struct Live {
    /// By the engine's clock, since 1970: what came before is past, and is told for those who missed it.
    from_ns: u64,
    tale: Tale<Incoming, Told>,
    /// Ends when the engine no longer answers, and says how.
    probe: BoxFuture<'static, String>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            if self.failures > 0 {
                sleep(backoff(self.failures)).await;
            }
            let mut live = match connect(&self.connection, &self.label).await {
                Ok(live) => live,
                Err(reason) => {
                    self.failed(&reason);
                    continue;
                }
            };
            self.heard_to_ns = self.heard_to_ns.max(live.from_ns);
            self.shared.connected();
            let lost = self.hear(&mut live).await;
            self.shared.disconnected();
            self.failed(&lost);
        }
    }

    /// Ends with the stream, and says why.
    async fn hear(&mut self, live: &mut Live) -> String {
        let mut lasts = pin!(sleep(Duration::from_millis(LASTS_MS)));
        loop {
            tokio::select! {
                told = live.tale.next() => match told {
                    Ok(told) => self.heard(told),
                    Err(broken) => return broken.to_string(),
                },
                reason = &mut live.probe => return reason,
                () = &mut lasts, if self.failures > 0 => {
                    info!(engine = self.errors.engine, "events are followed again");
                    self.failures = 0;
                }
            }
        }
    }

    fn heard(&mut self, Told { action, actor, at_ns }: Told) {
        let id = ContainerId::new(actor.id);
        // Before anybody is told, for they may list at once.
        if TOLD_EARLY.contains(&action.as_str()) {
            self.lagging.note(id.clone());
        }
        let is_late = at_ns <= self.heard_to_ns;
        self.heard_to_ns = self.heard_to_ns.max(at_ns);
        if is_late && action == SUSPENDED {
            // It may be over: whoever waits is to look.
            self.shared.something_changed(&id);
        } else {
            self.shared.changed(&id, &action);
        }
    }

    /// Told once an outage.
    fn failed(&mut self, reason: &str) {
        if self.failures == 0 {
            warn!(
                engine = self.errors.engine,
                reason, "the engine's events cannot be followed; trying again"
            );
        } else {
            debug!(engine = self.errors.engine, reason, failures = self.failures, "no events yet");
        }
        self.failures = self.failures.saturating_add(1);
    }
}

async fn connect(connection: &Connection, label: &str) -> Result<Live, String> {
    let engine_now = ping(connection).await?;
    let question = question(label, engine_now);
    // Whatever has happened by then, the observation that follows the gap shows it.
    let tale = match timeout(Duration::from_millis(ANSWER_MS), connection.events(&question)).await {
        Ok(accepted) => Tale::new(accepted.map_err(|error| chain(&error))?),
        Err(_) => return Err(format!("no answer within {ANSWER_MS} ms")),
    };
    let probed = connection.clone();
    let probe = async move {
        loop {
            sleep(Duration::from_millis(PING_EVERY_MS)).await;
            if let Err(reason) = ping(&probed).await {
                return reason;
            }
        }
    };
    // The clock is read to the second, downwards.
    let from =
        engine_now.and_then(|now| now.checked_add(Duration::from_secs(1))?.duration_since(UNIX_EPOCH).ok());
    let from_ns = from.map_or(0, |from| u64::try_from(from.as_nanos()).unwrap_or(u64::MAX));
    Ok(Live { from_ns, tale, probe: probe.boxed() })
}

/// For the events of this cluster's containers, from a little before `engine_now`.
fn question(label: &str, engine_now: Option<SystemTime>) -> String {
    let filters = json!({ "type": ["container"], "label": [label], "event": ACTIONS });
    let mut question = form_urlencoded::Serializer::new(String::new());
    question.append_pair("filters", &filters.to_string());
    if let Some(since) =
        engine_now.and_then(|now| now.checked_sub(LOOK_BACK)?.duration_since(UNIX_EPOCH).ok())
    {
        question.append_pair("since", &since.as_secs().to_string());
    }
    question.finish()
}

async fn ping(connection: &Connection) -> Result<Option<SystemTime>, String> {
    match timeout(Duration::from_millis(ANSWER_MS), connection.ping()).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err(format!("the engine does not answer a ping within {ANSWER_MS} ms")),
    }
}

/// Half of the wait is left to chance, so that many who lost one engine at once do not return at once.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(BACKOFF_MAX_MS.ilog2());
    let longest_ms = (BACKOFF_MIN_MS << doublings).min(BACKOFF_MAX_MS);
    Duration::from_millis(rand::random_range(longest_ms / 2..=longest_ms))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::config::{DockerConfig, EngineAddress, Limits};
    use crate::registry::Registries;

    /// Nobody follows the engine: what is heard comes from the test.
    fn events() -> Arc<Events> {
        let config = DockerConfig {
            engine: EngineAddress::Unix("/nobody/listens".into()),
            tls: None,
            cluster: "demo".to_owned(),
            instances: Vec::new(),
            registries: Registries::default(),
            limits: Limits::default(),
        };
        let errors = Errors::new(&config.engine);
        let connection = Connection::new(&errors.engine, &config);
        let events = Events::new(connection, errors, Lagging::default(), &config.cluster);
        let silent = tokio::spawn(std::future::pending::<()>()).abort_handle();
        events.following.set(silent).expect("nobody has listened yet");
        Arc::new(events)
    }

    #[tokio::test]
    async fn each_listener_hears_of_its_own_container() {
        let events = events();
        let shared = &events.follower.shared;
        let (a, b) = (ContainerId::new("a"), ContainerId::new("b"));
        shared.changed(&a, "die");
        let (mut first, second, mut other) = (events.listen(&a), events.listen(&a), events.listen(&b));
        assert!(first.anything().now_or_never().is_none(), "it was before");
        shared.changed(&a, "pause");
        assert!(first.anything().now_or_never().is_some());
        assert!(first.anything().now_or_never().is_none(), "it has been asked");
        assert!(first.ended().now_or_never().is_none(), "a suspended one has not ended");
        shared.changed(&a, "die");
        shared.changed(&a, "destroy");
        for listener in [&first, &second] {
            assert!(listener.ended().now_or_never().is_some(), "it stays so, however late it is asked");
        }
        assert!(other.anything().now_or_never().is_none());
        shared.connected();
        assert!(other.anything().now_or_never().is_some(), "something may have been missed");
        assert!(other.ended().now_or_never().is_none());
    }

    #[tokio::test]
    async fn one_is_suspended_until_it_is_resumed_or_something_may_have_been_missed() {
        let events = events();
        let shared = &events.follower.shared;
        let id = ContainerId::new("a");
        shared.changed(&id, "pause");
        let listener = events.listen(&id);
        assert!(listener.suspended().now_or_never().is_none(), "it was before");
        for action in ["unpause", "die", "destroy"] {
            shared.changed(&id, "pause");
            assert!(listener.suspended().now_or_never().is_some());
            shared.changed(&id, action);
            assert_eq!(listener.suspended().now_or_never().is_none(), action == "unpause");
        }
        shared.connected();
        assert!(listener.suspended().now_or_never().is_none(), "nobody knows what it is by now");
    }

    #[tokio::test]
    async fn nothing_is_kept_for_those_who_no_longer_listen() {
        let events = events();
        let id = ContainerId::new("a");
        let (first, second) = (events.listen(&id), events.listen(&id));
        drop(first);
        events.follower.shared.changed(&id, "die");
        assert!(second.ended().now_or_never().is_some(), "another one's leaving changes nothing");
        drop(second);
        assert!(events.follower.shared.awaited().is_empty());
    }

    #[tokio::test]
    async fn a_reader_is_told_of_the_connection_first_and_of_many_changes_once() {
        let events = events();
        let shared = &events.follower.shared;
        let mut early = events.changes();
        assert_eq!(early.next().now_or_never(), None);
        shared.connected();
        for mut reader in [early, events.changes()] {
            assert_eq!(reader.next().now_or_never(), Some(Some(Event::Gap)));
            assert_eq!(reader.next().now_or_never(), None);
        }
        let mut reader = events.changes();
        assert_eq!(reader.next().now_or_never(), Some(Some(Event::Gap)));
        for action in ["create", "start", "die"] {
            shared.changed(&ContainerId::new("a"), action);
        }
        assert_eq!(reader.next().now_or_never(), Some(Some(Event::Changed)));
        assert_eq!(reader.next().now_or_never(), None);
        shared.disconnected();
        assert_eq!(events.changes().next().now_or_never(), None, "not while the engine is away");
        shared.connected();
        assert_eq!(reader.next().now_or_never(), Some(Some(Event::Gap)));
    }

    #[test]
    fn what_is_asked_for_can_be_a_part_of_an_address() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_002);
        let question = question("force12.cluster=a&b", Some(now));
        assert!(format!("http://engine/events?{question}").parse::<hyper::Uri>().is_ok(), "{question}");
        let pairs: HashMap<_, _> = form_urlencoded::parse(question.as_bytes()).collect();
        assert_eq!(pairs["since"], "1000000");
        let filters: serde_json::Value = serde_json::from_str(&pairs["filters"]).expect("it is JSON");
        assert_eq!(filters["label"], json!(["force12.cluster=a&b"]));
        assert_eq!(filters["event"], json!(ACTIONS));
    }

    #[test]
    fn the_backoff_doubles_within_its_bounds() {
        for (failures, longest_ms) in [(1, 50), (2, 100), (3, 200), (6, 1_600), (7, 2_000), (u32::MAX, 2_000)]
        {
            for _ in 0..100 {
                let wait = backoff(failures);
                assert!(wait <= Duration::from_millis(longest_ms), "{failures}: {wait:?}");
                assert!(wait >= Duration::from_millis(longest_ms / 2), "{failures}: {wait:?}");
            }
        }
    }
}
