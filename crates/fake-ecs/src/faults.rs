//! What goes wrong on request: by script, or by dice.

/// What goes wrong with one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Answered `ThrottlingException`; nothing has happened.
    Throttled,
    /// Answered 500 `ServerException`; nothing has happened.
    ServerError,
    /// Answered 503 by something in front of the service; nothing has happened.
    Unavailable,
    /// The connection breaks before the service has heard anything.
    NotSent,
    /// It is done, and the connection breaks before the answer.
    AnswerLost,
    /// It is done, and never answered.
    Hang,
    /// It takes so many milliseconds more, and is done at the end of them.
    Slow {
        /// Milliseconds.
        extra_ms: u64,
    },
}

/// A fault for the next calls that match. The oldest one that matches a call is used up first.
#[derive(Clone, Debug)]
pub struct Fault {
    kind: FaultKind,
    operation: Option<String>,
    times_left: u32,
}

impl Fault {
    /// A fault for the next call, whichever it is.
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, operation: None, times_left: 1 }
    }

    /// Only for this operation.
    #[must_use]
    pub fn on(mut self, operation: impl Into<String>) -> Self {
        self.operation = Some(operation.into());
        self
    }

    /// For so many calls.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.times_left = count;
        self
    }
}

/// How often calls go wrong by themselves, in calls per thousand. The sum is at most 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// As [`FaultKind::Throttled`].
    pub throttled_per_mille: u32,
    /// As [`FaultKind::ServerError`].
    pub server_error_per_mille: u32,
    /// As [`FaultKind::Unavailable`].
    pub unavailable_per_mille: u32,
    /// As [`FaultKind::NotSent`].
    pub not_sent_per_mille: u32,
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
    fn pick(self, roll: u32) -> Option<FaultKind> {
        let kinds = [
            (self.throttled_per_mille, FaultKind::Throttled),
            (self.server_error_per_mille, FaultKind::ServerError),
            (self.unavailable_per_mille, FaultKind::Unavailable),
            (self.not_sent_per_mille, FaultKind::NotSent),
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

/// The faults that wait for their call.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) scripted: Vec<Fault>,
    pub(crate) rates: FaultRates,
    /// EC2 instance ids and the reasons for which the next starts there are refused.
    pub(crate) refusals: Vec<(String, String)>,
}

impl Faults {
    /// What goes wrong with a call, given a roll of 0 to 999.
    pub(crate) fn strike(&mut self, operation: &str, roll: u32) -> Option<FaultKind> {
        let matches = |fault: &Fault| fault.operation.as_deref().is_none_or(|wanted| wanted == operation);
        let Some(position) = self.scripted.iter().position(matches) else {
            return self.rates.pick(roll);
        };
        let fault = &mut self.scripted[position];
        let kind = fault.kind.clone();
        fault.times_left = fault.times_left.saturating_sub(1);
        if fault.times_left == 0 {
            self.scripted.remove(position);
        }
        Some(kind)
    }

    /// Why the next start on an instance is refused, if it was asked for.
    pub(crate) fn refusal(&mut self, ec2_instance_id: &str) -> Option<String> {
        let position = self.refusals.iter().position(|(instance, _)| instance == ec2_instance_id)?;
        Some(self.refusals.remove(position).1)
    }
}
