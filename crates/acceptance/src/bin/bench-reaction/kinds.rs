//! What is measured: each kind's name, stages, mode and floor.

/// How the scheduler is set up, and what is measured beside it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Victims are stopped, successors started.
    Stop,
    /// Victims are frozen, successors started: there are no standbys.
    FreezeStart,
    /// Victims are frozen, standbys thawed in their room.
    Freeze,
    /// The same, a standby beside its victim.
    FreezeBeside,
    /// There is room; standbys are thawed.
    Room,
}

impl Mode {
    pub(crate) const ALL: [Self; 5] =
        [Self::Stop, Self::FreezeStart, Self::Freeze, Self::FreezeBeside, Self::Room];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::FreezeStart => "freeze without standbys",
            Self::Freeze => "freeze",
            Self::FreezeBeside => "freeze with overlap",
            Self::Room => "room",
        }
    }
}

/// One kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    KillCreateStart,
    StopSwap,
    FourReplaced,
    Burst,
    Swarm,
    PauseCreateStart,
    FreezeStart,
    PauseThenUnpause,
    FreezeSwap,
    PauseBesideUnpause,
    FreezeSwapBeside,
    Unpause,
    StandbyThaw,
}

impl Kind {
    /// In the order of a round.
    pub(crate) const ALL: [Self; 13] = [
        Self::KillCreateStart,
        Self::StopSwap,
        Self::FourReplaced,
        Self::Burst,
        Self::Swarm,
        Self::PauseCreateStart,
        Self::FreezeStart,
        Self::PauseThenUnpause,
        Self::FreezeSwap,
        Self::PauseBesideUnpause,
        Self::FreezeSwapBeside,
        Self::Unpause,
        Self::StandbyThaw,
    ];

    /// What is measured seldom is measured in one of so many rounds: it takes long, and no p99 is asked of it.
    pub(crate) const SELDOM: u32 = 4;

    pub(crate) const fn is_seldom(self) -> bool {
        matches!(self, Self::FourReplaced | Self::Burst | Self::Swarm)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::KillCreateStart => "bare: kill, create, start",
            Self::StopSwap => "Force12: stop-swap",
            Self::FourReplaced => "bare: four of these at once",
            Self::Burst => "Force12: burst of four",
            Self::Swarm => "Docker Swarm: one more",
            Self::PauseCreateStart => "bare: pause, create, start",
            Self::FreezeStart => "Force12: freeze, start",
            Self::PauseThenUnpause => "bare: pause, then unpause",
            Self::FreezeSwap => "Force12: freeze-swap",
            Self::PauseBesideUnpause => "bare: pause beside unpause",
            Self::FreezeSwapBeside => "Force12: freeze-swap, overlap",
            Self::Unpause => "bare: unpause",
            Self::StandbyThaw => "Force12: standby-thaw",
        }
    }

    /// The bare calls that make the same change.
    pub(crate) const fn floor(self) -> Option<Self> {
        match self {
            Self::StopSwap => Some(Self::KillCreateStart),
            Self::Burst => Some(Self::FourReplaced),
            Self::FreezeStart => Some(Self::PauseCreateStart),
            Self::FreezeSwap => Some(Self::PauseThenUnpause),
            Self::FreezeSwapBeside => Some(Self::PauseBesideUnpause),
            Self::StandbyThaw => Some(Self::Unpause),
            _ => None,
        }
    }

    /// When it has its turn.
    pub(crate) const fn mode(self) -> Mode {
        match self {
            Self::KillCreateStart | Self::StopSwap | Self::FourReplaced | Self::Burst | Self::Swarm => {
                Mode::Stop
            }
            Self::PauseCreateStart | Self::FreezeStart => Mode::FreezeStart,
            Self::PauseThenUnpause | Self::FreezeSwap => Mode::Freeze,
            Self::PauseBesideUnpause | Self::FreezeSwapBeside => Mode::FreezeBeside,
            Self::Unpause | Self::StandbyThaw => Mode::Room,
        }
    }

    /// The events of the engine that its stages end with; the last is the new container's. The first stage begins with
    /// what is sent: Force12's differs from that of its floor by Force12's own time.
    pub(crate) const fn stages(self) -> &'static [&'static str] {
        match self {
            Self::KillCreateStart => &["kill", "ended", "created", "started"],
            Self::StopSwap => &["kill", "ended", "started"],
            Self::FourReplaced | Self::Burst => &["the first started", "the last started"],
            Self::Swarm => &["created", "started"],
            Self::PauseCreateStart => &["paused", "created", "started"],
            Self::FreezeStart => &["paused", "started"],
            Self::PauseThenUnpause | Self::FreezeSwap => &["paused", "unpaused"],
            Self::PauseBesideUnpause | Self::FreezeSwapBeside | Self::Unpause | Self::StandbyThaw => {
                &["unpaused"]
            }
        }
    }
}
