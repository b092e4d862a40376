//! Force12's own reactions: a rise in demand, from its PUT to the engine's event of the last container that it takes.

use acceptance::observer::now_ns;
use acceptance::stack::{FILL, IMPORTANT, Options, Stack};
use acceptance::timeline::{Event, Nanos, Timeline};
use anyhow::{Context as _, Result, bail};
use bollard::models::ContainerInspectResponse;

use crate::BOUND;
use crate::kinds::Mode;
use crate::statistics::Round;

/// The demand that each round begins with.
const BASE: u32 = 4;

/// Standbys in all where there are any: one on each of three instances.
const STANDBYS: u32 = 3;

/// The product, running.
pub(crate) struct Force12 {
    stack: Stack,
    /// Its scheduler's configuration as it was at first.
    plain: String,
    mode: Mode,
}

impl Mode {
    /// What is added to the important service's configuration.
    const fn important_lines(self) -> &'static str {
        match self {
            Self::Stop | Self::FreezeStart => "",
            Self::Freeze | Self::Room => "freezable = true\non_preempt = \"freeze\"\nstandby = 1\n",
            Self::FreezeBeside => {
                "freezable = true\non_preempt = \"freeze\"\nstandby = 1\noverlap = \"swap\"\n"
            }
        }
    }

    /// What is added to the fill service's.
    const fn fill_lines(self) -> &'static str {
        match self {
            Self::Stop => "",
            Self::FreezeStart | Self::Freeze | Self::FreezeBeside => {
                "freezable = true\non_preempt = \"freeze\"\n"
            }
            // Of nine slots three are free, one on each instance.
            Self::Room => "max = 2\n",
        }
    }

    const fn standbys(self) -> u32 {
        match self {
            Self::Stop | Self::FreezeStart => 0,
            Self::Freeze | Self::FreezeBeside | Self::Room => STANDBYS,
        }
    }

    /// The engine's word for the end of the room that a victim takes, where there are victims.
    const fn left(self) -> Option<&'static str> {
        match self {
            Self::Stop => Some("die"),
            Self::FreezeStart | Self::Freeze | Self::FreezeBeside => Some("pause"),
            Self::Room => None,
        }
    }

    /// The engine's word for the begin of a successor.
    const fn begins(self) -> &'static str {
        match self {
            Self::Stop | Self::FreezeStart => "start",
            Self::Freeze | Self::FreezeBeside | Self::Room => "unpause",
        }
    }
}

impl Force12 {
    /// Starts it, with victims stopped.
    pub(crate) async fn start(network: &'static str) -> Result<Self> {
        let stack = Stack::start(Options { network, ..Options::default() }).await?;
        let plain = std::fs::read_to_string(stack.scheduler.config())?;
        stack.hold(BASE).await?;
        stack.settled(BASE, 0, BOUND).await?;
        Ok(Self { stack, plain, mode: Mode::Stop })
    }

    pub(crate) const fn stack(&self) -> &Stack {
        &self.stack
    }

    /// One of the important service's containers, as the engine knows it.
    pub(crate) async fn one_of_ours(&self) -> Result<ContainerInspectResponse> {
        let seen = self.stack.observer.timeline()?;
        let ours = seen.of("start").filter(|event| event.service == IMPORTANT).last();
        self.stack.engine.inspect(&ours.context("nothing was started")?.id).await
    }

    /// Sets it up for a mode, and returns when nothing is left to be done for that.
    pub(crate) async fn set(&mut self, mode: Mode) -> Result<()> {
        let mut text = self.plain.clone();
        for (service, lines) in [(IMPORTANT, mode.important_lines()), (FILL, mode.fill_lines())] {
            let place = format!("name = \"{service}\"\n");
            text = text.replace(&place, &format!("{place}{lines}"));
        }
        if mode != self.mode {
            self.stack.configure(&text, BOUND).await?;
            if let Some(refused) =
                self.stack.scheduler.log().lines().find(|line| line.contains("configuration refused"))
            {
                bail!("the scheduler has refused the configuration of mode {}: {refused}", mode.name());
            }
            self.mode = mode;
        }
        self.stack.settled(BASE, mode.standbys(), BOUND).await?;
        // What another mode has left frozen ends only when there is room for that, or after a while.
        let what = format!("nothing frozen that mode {} does not freeze", mode.name());
        self.stack
            .snapshot_until(&what, BOUND, |snapshot| {
                let frozen = |name: &str| snapshot.services.iter().any(|it| it.name == name && it.frozen > 0);
                (mode.standbys() > 0 || !frozen(IMPORTANT)) && (mode.left() == Some("pause") || !frozen(FILL))
            })
            .await?;
        self.stack.settled(BASE, mode.standbys(), BOUND).await
    }

    /// Raises demand by so many, measures, and puts it back.
    pub(crate) async fn rise(&self, by: usize) -> Result<Round> {
        let Self { stack, mode, .. } = self;
        let raised = BASE + u32::try_from(by)?;
        let sent = now_ns();
        stack.hold(raised).await?;
        let begun = self.events(IMPORTANT, mode.begins(), sent, by).await?;
        let mut moments = vec![sent];
        if let Some(left) = mode.left() {
            let victims = self.events(FILL, left, sent, by).await?;
            let early = victims.iter().zip(&begun).find(|(victim, successor)| victim.at > successor.at);
            if *mode != Mode::FreezeBeside
                && let Some((victim, successor)) = early
            {
                bail!("{} began without waiting for {}", successor.name, victim.name);
            }
            if by == 1 && *mode == Mode::Stop {
                moments.push(self.events(FILL, "kill", sent, 1).await?[0].at);
            }
            if by == 1 && *mode != Mode::FreezeBeside {
                moments.push(victims[0].at);
            }
        }
        if by > 1 {
            moments.push(begun[0].at);
        }
        moments.push(begun[by - 1].at);
        stack.settled(raised, mode.standbys(), BOUND).await?;
        stack.hold(BASE).await?;
        stack.settled(BASE, mode.standbys(), BOUND).await?;
        Ok(Round::new(&moments))
    }

    /// The first `count` events of a service's containers with this action after a moment.
    async fn events(&self, service: &str, action: &str, sent: Nanos, count: usize) -> Result<Vec<Event>> {
        let what = format!("{count} times {action} of {service}");
        let first = |seen: &Timeline| {
            let of = |event: &&Event| event.service == service && event.action == action;
            let found: Vec<Event> = seen.after(sent).iter().filter(of).take(count).cloned().collect();
            (found.len() == count).then_some(found)
        };
        self.stack.observer.wait_for(&what, BOUND, first).await
    }
}
