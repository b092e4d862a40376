//! From a script that fails to a smaller one that still does.

use crate::script::Step;

/// Leaves out whatever can be left out while `fails` still says what is wrong: halves first, then quarters, and so on to
/// single steps, again and again until none can go. Plays at most `plays` times. `None` if the whole does not fail.
pub fn shrink(
    steps: &[Step],
    mut plays: u32,
    mut fails: impl FnMut(&[Step]) -> Option<String>,
) -> Option<(Vec<Step>, String)> {
    let mut steps = steps.to_vec();
    let mut fault = fails(&steps)?;
    let mut size = steps.len().div_ceil(2);
    while size > 0 && !steps.is_empty() {
        let mut shrunk = false;
        let mut from = 0;
        while from < steps.len() && plays > 0 {
            plays -= 1;
            let mut fewer = steps.clone();
            fewer.drain(from..(from + size).min(steps.len()));
            if let Some(still) = fails(&fewer) {
                (steps, fault, shrunk) = (fewer, still, true);
            } else {
                from += size;
            }
        }
        if plays == 0 {
            break;
        }
        size = if shrunk { size.min(steps.len()) } else { size / 2 };
    }
    Some((steps, fault))
}
