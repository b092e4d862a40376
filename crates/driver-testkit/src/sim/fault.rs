//! What can go wrong between a driver and its engine, by script or by dice.

/// A request that the driver makes to the engine. A driver's start is two of them: create, then start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// Listing what is there.
    Observe,
    /// Looking an image up.
    Prepare,
    /// Creating a container.
    Create,
    /// Starting a created one.
    Start,
    /// Stopping one.
    Stop,
    /// Suspending one.
    Freeze,
    /// Resuming one.
    Thaw,
    /// Removing one.
    Remove,
}

impl Call {
    /// The call of the driver trait that makes this request.
    pub const fn of_driver(self) -> &'static str {
        match self {
            Self::Create => Self::Start.name(),
            other => other.name(),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Prepare => "prepare",
            Self::Create => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Remove => "remove",
        }
    }

    /// Whether it changes anything, so that a lost answer leaves a doubt.
    pub(super) const fn changes(self) -> bool {
        !matches!(self, Self::Observe | Self::Prepare)
    }
}

/// What goes wrong with one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The call never reaches the engine: [`driver::DriverError::Unreachable`], and nothing has happened.
    Refused,
    /// The engine refuses: [`driver::DriverError::Rejected`] with this code, and nothing has happened.
    Rejected {
        /// As in [`driver::DriverError::Rejected`].
        code: &'static str,
    },
    /// The engine does it, and its answer is lost: [`driver::DriverError::OutcomeUnknown`].
    AnswerLost,
    /// The call is never done nor answered; the driver's own limit ends it with `OutcomeUnknown`.
    Hang,
    /// The engine takes this much longer. Beyond the driver's limit the answer is `OutcomeUnknown`, and the
    /// effect comes later all the same.
    Slow {
        /// Milliseconds more than its latency.
        extra_ms: u64,
    },
}

/// A fault for the next calls that match. The oldest one that matches a call is used up first.
#[derive(Clone, Debug)]
pub struct Fault {
    kind: FaultKind,
    call: Option<Call>,
    service: Option<String>,
    instance: Option<String>,
    pub(super) times_left: u32,
}

impl Fault {
    /// A fault for the next call, whichever it is.
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, call: None, service: None, instance: None, times_left: 1 }
    }

    /// Only for this call.
    #[must_use]
    pub fn on(mut self, call: Call) -> Self {
        self.call = Some(call);
        self
    }

    /// Only for containers of this service.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// Only for containers on this instance.
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// For so many calls.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.times_left = count;
        self
    }

    /// What goes wrong.
    pub fn kind(&self) -> &FaultKind {
        &self.kind
    }

    pub(super) fn matches(&self, call: Call, service: Option<&str>, instance: Option<&str>) -> bool {
        self.times_left > 0
            && self.call.is_none_or(|wanted| wanted == call)
            && self.service.as_deref().is_none_or(|wanted| Some(wanted) == service)
            && self.instance.as_deref().is_none_or(|wanted| Some(wanted) == instance)
    }
}

/// How often calls go wrong by themselves, in calls per thousand. The sum is at most 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// As [`FaultKind::Refused`].
    pub refused_per_mille: u32,
    /// As [`FaultKind::AnswerLost`].
    pub answer_lost_per_mille: u32,
    /// As [`FaultKind::Hang`].
    pub hang_per_mille: u32,
    /// As [`FaultKind::Slow`], by [`Self::slow_extra_ms`].
    pub slow_per_mille: u32,
    /// How much longer a slow call takes, in milliseconds.
    pub slow_extra_ms: u64,
}

impl FaultRates {
    /// Which fault a roll of 0 to 999 gives.
    pub(super) fn pick(self, roll: u32) -> Option<FaultKind> {
        let kinds = [
            (self.refused_per_mille, FaultKind::Refused),
            (self.answer_lost_per_mille, FaultKind::AnswerLost),
            (self.hang_per_mille, FaultKind::Hang),
            (self.slow_per_mille, FaultKind::Slow { extra_ms: self.slow_extra_ms }),
        ];
        let mut bound = 0;
        kinds.into_iter().find_map(|(rate, kind)| {
            bound += rate;
            (roll < bound).then_some(kind)
        })
    }
}

/// How an engine is out of reach. Its containers run on, and requests that had reached it are still done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Connections are refused: calls fail within a millisecond.
    Refusing,
    /// Nothing answers, and nothing arrives: calls end by the driver's own limit.
    Silent,
    /// The engine's process is stopped (SIGSTOP): nothing answers, and what is asked meanwhile is done when it goes
    /// on, whether or not anybody still waits for it.
    Stopped,
}
