//! The loop.

use std::sync::Arc;

use planner::Resources;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::handle::{Handle, Shared};
use crate::settings::{Engines, Settings, SettingsError};
use crate::view::View;

/// Everything that a controller touches.
pub struct Parts {
    /// What is wanted.
    pub settings: Settings,
    /// The ways to engines and demand sources.
    pub engines: Engines,
    /// The clock.
    pub clock: Clock,
    /// Of the jitter in backoffs.
    pub seed: u64,
    /// Differs with each start; shown in every view.
    pub epoch: String,
}

/// The control loop. [`Controller::run`] is the whole of it: dropping that future ends every task of it at once,
/// as a crash would.
pub struct Controller {
    shared: Arc<Shared>,
    views: watch::Sender<Arc<View>>,
}

impl Controller {
    /// A controller and the handle to it; nothing happens before [`Controller::run`].
    pub fn new(parts: Parts) -> Result<(Self, Handle), SettingsError> {
        parts.settings.validate(&parts.engines)?;
        let shared = Arc::new(Shared::default());
        let (views, receiver) = watch::channel(Arc::new(View {
            epoch: parts.epoch.into(),
            sequence: 0,
            taken_at: parts.clock.now(),
            cluster: parts.settings.cluster.as_str().into(),
            not_ready: Some("the controller is starting".to_owned()),
            success: false,
            success_since: parts.clock.now(),
            blocked_by: vec!["observing"],
            capacity: Resources::ZERO,
            usable_capacity: Resources::ZERO,
            used: Resources::ZERO,
            services: Vec::new(),
            instances: Vec::new(),
            reaction: crate::LatencyView::default(),
            reaction_preempting: crate::LatencyView::default(),
            start: crate::LatencyView::default(),
            stop: crate::LatencyView::default(),
            draining: false,
        }));
        let handle = Handle { shared: Arc::clone(&shared), views: receiver };
        Ok((Self { shared, views }, handle))
    }

    /// Runs until [`Handle::shutdown`].
    pub async fn run(self) {
        let _ = self.views;
        loop {
            self.shared.woken().await;
            for _command in self.shared.take_commands() {}
            let _ = self.shared.take_woken_by();
        }
    }
}
