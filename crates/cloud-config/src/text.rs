//! What user data has to be as a text, before anybody reads it as YAML or JSON.

use crate::problem::Problem;
use crate::template;

/// The limit of EC2, "in raw form, before it is base64-encoded":
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html>.
pub(crate) const USER_DATA_MAX_BYTES: usize = 16 * 1024;

/// How values that are to be filled in begin.
const PLACEHOLDER_PREFIX: &str = "YOUR_";

/// A line's place: in the user data itself, or in one of its files or units.
fn at(place: Option<&str>, index: usize) -> String {
    let line = index + 1;
    place.map_or_else(|| format!("line {line}"), |place| format!("{place}, line {line}"))
}

/// What nobody sees on a screen.
pub(crate) fn unseen(place: Option<&str>, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        if line.contains('\r') {
            problems.push(Problem::CarriageReturn { place: at(place, index) });
        } else if line.ends_with([' ', '\t']) {
            problems.push(Problem::TrailingSpace { place: at(place, index) });
        }
        if line.contains('\t') {
            problems.push(Problem::Tab { place: at(place, index) });
        }
    }
    problems
}

/// A last line that is not one.
pub(crate) fn unended(text: &str) -> Option<Problem> {
    (!text.ends_with('\n')).then_some(Problem::NoFinalNewline)
}

/// More than EC2 takes.
pub(crate) fn too_large(text: &str) -> Option<Problem> {
    (text.len() > USER_DATA_MAX_BYTES).then_some(Problem::TooLarge { bytes: text.len() })
}

/// What of a template is left in.
pub(crate) fn left_in(place: Option<&str>, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if template::is_marker(line) {
            problems.push(Problem::Marker { place: at(place, index), marker: line.trim().to_owned() });
        }
        for (position, _) in line.match_indices(PLACEHOLDER_PREFIX) {
            let placeholder: String = line[position..]
                .chars()
                .take_while(|character| character.is_ascii_uppercase() || *character == '_')
                .collect();
            problems.push(Problem::Placeholder { place: at(place, index), placeholder });
        }
    }
    problems
}
