//! Success: whether everything that is wanted runs.

use std::collections::BTreeSet;

use crate::board::Board;
use crate::model::{Millis, ServiceKind};
use crate::plan::{Action, Plan, Success};
use crate::reasons::{NotDone, StartReason};
use crate::state::State;

/// Whether everything that is wanted runs, as the state stands; `plan` is what was planned from it at `now`.
pub fn success(state: &State, plan: &Plan, now: Millis) -> Success {
    let board = Board::new(state, now);
    let mut blocked_by = BTreeSet::new();
    for id in state.service_ids() {
        let service = state.service(id);
        let codes = plan.not_done.iter().filter(|item| item.service() == id).map(NotDone::code);
        if service.kind == ServiceKind::Fill || service.removed {
            // That a fill service has not got more is in the way only where room is idle for it.
            if !service.removed && board.tallies[id.index()].unhealthy > 0 {
                blocked_by.insert("unhealthy");
            }
            continue;
        }
        let target = plan.services.get(id.index()).and_then(|of| of.target);
        let demand = state.demand(id, now).containers;
        if demand.is_none() {
            blocked_by.insert("unknown_demand");
            continue;
        }
        let tally = &board.tallies[id.index()];
        if Some(tally.running) != target {
            let codes: Vec<_> = codes.collect();
            if codes.is_empty() {
                blocked_by.insert("in_progress");
            }
            blocked_by.extend(codes);
        }
        if let (Some(target), Some(demand)) = (target, demand)
            && target != demand
        {
            blocked_by.insert(if target == service.max {
                "max"
            } else if target == service.min {
                "min"
            } else {
                "scale_down_delayed"
            });
        }
    }
    for item in &plan.not_done {
        if matches!(item, NotDone::FillHeld { .. }) {
            blocked_by.insert(item.code());
        }
    }
    if idle_or_in_transit(&board, plan) {
        blocked_by.insert("in_progress");
    }
    Success { success: blocked_by.is_empty(), blocked_by: blocked_by.into_iter().collect() }
}

/// Whether room on a ready instance is idle that a fill service will use, or a fill container is on its way.
fn idle_or_in_transit(board: &Board<'_>, plan: &Plan) -> bool {
    let state = board.state;
    let fills = |service| state.service(service).kind == ServiceKind::Fill;
    let planned = plan.actions.iter().any(|action| match action {
        Action::Start { reason, .. } | Action::Thaw { reason, .. } => *reason != StartReason::Standby,
        Action::Stop { container, .. } | Action::Freeze { container, .. } => fills(container.service),
        Action::Evict { .. } | Action::Kill { .. } | Action::Remove { .. } => false,
    });
    let in_transit = || {
        board.spots.iter().flat_map(|spot| &spot.groups).any(|group| group.in_transit && fills(group.service))
    };
    planned || in_transit()
}
