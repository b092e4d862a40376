//! The conformance suite: what every driver does alike, whatever its engine.
//!
//! A driver's own tests implement [`Fixture`] and name it to [`conformance_tests!`](crate::conformance_tests),
//! which makes one test of each case. Every case works on containers of a service of its own, waits for
//! changes by the driver's own events (bounded by [`Fixture::patience`]) and never sleeps for luck.

mod fixture;
mod stage;

pub mod cases;

pub use fixture::{Backdoor, Fixture};

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Runs one case to its end, and tears the fixture down also when the case fails.
pub async fn run_case<F: Fixture>(fixture: F, case: impl AsyncFnOnce(&dyn Fixture)) {
    let result = AssertUnwindSafe(case(&fixture)).catch_unwind().await;
    fixture.tear_down().await;
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Makes one `#[tokio::test]` of every case of the suite.
///
/// The first argument is an expression of type [`Fixture`](crate::conformance::Fixture), made anew for each case
/// within the test's runtime; it may await. What follows goes to `#[tokio::test(…)]`.
///
/// ```text
/// driver_testkit::conformance_tests!(MyFixture::new().await);
/// driver_testkit::conformance_tests!(MyFixture::new().await, start_paused = true);
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr $(, $($options:tt)*)?) => {
        $crate::conformance_tests! {
            @cases ($fixture) ($($($options)*)?)
            started_container_is_observed_running
            second_start_is_already_so
            same_start_twice_side_by_side_makes_one
            start_of_another_generation_is_a_conflict
            start_replaces_one_that_has_ended
            many_start_side_by_side
            start_with_a_missing_image_is_refused
            start_that_the_engine_cannot_do_is_refused
            start_dropped_at_once_is_completed_by_the_same_start
            start_dropped_while_it_waits_is_completed_by_the_same_start
            start_after_a_victim_waits_for_its_end
            start_after_a_victim_that_is_gone_is_immediate
            start_after_a_victim_that_ended_is_immediate
            start_after_a_victim_that_is_frozen_meanwhile
            start_after_a_victim_that_stays_times_out
            stopped_container_has_ended
            stop_of_one_that_has_ended_is_already_so
            stop_waits_its_grace_for_one_that_ignores_the_signal
            stop_without_grace_is_immediate
            stop_does_not_wait_for_its_grace_in_vain
            stops_side_by_side_all_succeed
            removed_container_is_gone
            remove_of_a_running_one_is_refused
            freeze_and_thaw
            freeze_of_one_that_has_ended_is_already_so
            thaw_of_one_that_is_gone_is_refused
            thaw_waits_for_its_victim
            frozen_container_can_be_stopped
            frozen_container_can_be_killed
            thaw_of_one_that_somebody_resumed_is_already_so
            freeze_of_one_that_somebody_suspended_is_already_so
            instances_are_observed_with_their_capacity
            exit_code_is_observed
            prepare_knows_what_is_missing
            event_stream_begins_with_a_gap
            every_change_is_told_by_an_event
            every_reader_of_events_is_told
            what_others_do_to_our_containers_is_told_and_observed
            containers_of_others_are_not_observed
        }
    };
    (@cases ($fixture:expr) $options:tt $($case:ident)*) => {
        $( $crate::conformance_tests! { @case ($fixture) $options $case } )*
    };
    (@case ($fixture:expr) ($($options:tt)*) $case:ident) => {
        #[tokio::test($($options)*)]
        async fn $case() {
            $crate::conformance::run_case($fixture, $crate::conformance::cases::$case).await;
        }
    };
}
