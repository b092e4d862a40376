//! What user data has to be as a text, before anybody reads it as YAML or JSON.

use crate::problem::Problem;
use crate::template;

/// The limit of EC2, "in raw form, before it is base64-encoded":
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html>.
pub(crate) const USER_DATA_MAX_BYTES: usize = 16 * 1024;

/// How values that are to be filled in begin.
const PLACEHOLDER_PREFIX: &str = "YOUR_";

/// What nobody sees on a screen, and what a template has left in.
pub(crate) fn problems(text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        if line.contains('\r') {
            problems.push(Problem::CarriageReturn { line: number });
        } else if line.ends_with([' ', '\t']) {
            problems.push(Problem::TrailingSpace { line: number });
        }
        if line.contains('\t') {
            problems.push(Problem::Tab { line: number });
        }
    }
    if !text.ends_with('\n') {
        problems.push(Problem::NoFinalNewline);
    }
    problems
}

/// More than EC2 takes.
pub(crate) fn too_large(text: &str) -> Option<Problem> {
    (text.len() > USER_DATA_MAX_BYTES).then_some(Problem::TooLarge { bytes: text.len() })
}

/// What of a template is left in a text: in the user data itself, or, where it can't be seen there, in a file or unit.
pub(crate) fn left_in(place: Option<&str>, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = match place {
            Some(place) => format!("{place}, line {}", index + 1),
            None => format!("line {}", index + 1),
        };
        if template::is_marker(line) {
            problems.push(Problem::Marker { place: at.clone(), marker: line.trim().to_owned() });
        }
        for (position, _) in line.match_indices(PLACEHOLDER_PREFIX) {
            let placeholder: String = line[position..]
                .chars()
                .take_while(|character| character.is_ascii_uppercase() || *character == '_')
                .collect();
            problems.push(Problem::Placeholder { place: at.clone(), placeholder });
        }
    }
    problems
}
