//! Templates: placeholders, and sections that are kept or left out.
//!
//! A section is what stands between `# if NAME` and `# end NAME`, each alone on its line; the two lines themselves are
//! never rendered. Sections may be nested. To the formats, and to an editor, the marks are comments.

use crate::problem::Problem;
use crate::values::{NewRelic, Registry, Values};

/// When a section is kept.
type IsKept = fn(&Values) -> bool;

/// The sections, with when each is kept.
const SECTIONS: [(&str, IsKept); 6] = [
    ("registry-auth", |values| matches!(values.registry, Some(Registry::AuthData(_)))),
    ("registry-secret", |values| matches!(values.registry, Some(Registry::Secret(_)))),
    ("new-relic", |values| values.new_relic.is_some()),
    ("new-relic-key", |values| matches!(values.new_relic, Some(NewRelic::LicenseKey(_)))),
    ("new-relic-secret", |values| matches!(values.new_relic, Some(NewRelic::Secret(_)))),
    ("secrets", |values| {
        matches!(values.registry, Some(Registry::Secret(_)))
            || matches!(values.new_relic, Some(NewRelic::Secret(_)))
    }),
];

/// What a line marks.
enum Mark<'a> {
    If(&'a str),
    End(&'a str),
}

fn mark(line: &str) -> Option<Mark<'_>> {
    let words = line.trim().strip_prefix("# ")?;
    let name = |name: &str| !name.is_empty() && !name.contains(' ');
    match words.split_once(' ')? {
        ("if", section) if name(section) => Some(Mark::If(section)),
        ("end", section) if name(section) => Some(Mark::End(section)),
        _ => None,
    }
}

/// Whether a line is one of those that are never rendered.
#[must_use]
pub(crate) fn is_marker(line: &str) -> bool {
    mark(line).is_some()
}

/// Leaves out the sections that the values do not call for, and fills the values in.
///
/// # Errors
///
/// Sections that do not fit together, and a value that the template has no place for.
pub(crate) fn fill(template: &str, values: &Values) -> Result<String, Problem> {
    let mut filled = keep(template, values)?;
    for (placeholder, what, value) in values.placeholders() {
        if !filled.contains(placeholder) {
            return Err(Problem::Unused { placeholder, what });
        }
        filled = filled.replace(placeholder, &value);
    }
    Ok(filled)
}

fn keep(template: &str, values: &Values) -> Result<String, Problem> {
    let mut kept = String::with_capacity(template.len());
    // The sections that the line is in, outermost first, and whether each is kept.
    let mut within: Vec<(&str, usize, bool)> = Vec::new();
    for (index, line) in template.split_inclusive('\n').enumerate() {
        let number = index + 1;
        let wrong = |why| Problem::Section { line: number, marker: line.trim().to_owned(), why };
        match mark(line) {
            Some(Mark::If(name)) => {
                let (_, is_kept) = SECTIONS
                    .iter()
                    .find(|(known, _)| *known == name)
                    .ok_or_else(|| wrong("there is no such section"))?;
                within.push((name, number, is_kept(values)));
            }
            Some(Mark::End(name)) => match within.pop() {
                Some((open, _, _)) if open == name => {}
                _ => return Err(wrong("ends a section that is not the last one begun")),
            },
            None if within.iter().all(|(_, _, is_kept)| *is_kept) => kept.push_str(line),
            None => {}
        }
    }
    match within.pop() {
        Some((name, line, _)) => {
            Err(Problem::Section { line, marker: format!("# if {name}"), why: "does not end" })
        }
        None => Ok(kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::ClusterName;

    fn values() -> Values {
        Values {
            cluster: ClusterName::parse("demo").expect("a name"),
            registry: None,
            new_relic: Some(NewRelic::LicenseKey(
                "0123456789abcdef0123456789abcdef0123NRAL".parse().expect("a key"),
            )),
        }
    }

    #[test]
    fn sections_are_kept_or_left_out_with_their_marks() {
        let template = "a: YOUR_ECS_CLUSTER\n  # if new-relic\n  b\n  # if new-relic-key\n  YOUR_NEWRELIC_LICENSE_KEY\n\
                        # end new-relic-key\n# if secrets\nc\n# end secrets\n  # end new-relic\n# if it is prose, it stays\n";
        assert_eq!(
            fill(template, &values()).expect("it fits"),
            "a: demo\n  b\n  0123456789abcdef0123456789abcdef0123NRAL\n# if it is prose, it stays\n"
        );
    }

    #[test]
    fn sections_that_do_not_fit_are_refused() {
        for (template, why) in [
            ("YOUR_ECS_CLUSTER\n# if newrelic\n", "line 2: '# if newrelic': there is no such section"),
            ("# if secrets\n", "line 1: '# if secrets': does not end"),
            (
                "# if secrets\n# if new-relic\n# end secrets\n",
                "line 3: '# end secrets': ends a section that is not the last one begun",
            ),
            ("# end secrets\n", "line 1: '# end secrets': ends a section that is not the last one begun"),
        ] {
            assert_eq!(fill(template, &values()).expect_err(template).to_string(), why);
        }
    }

    #[test]
    fn a_value_without_a_place_is_refused() {
        let error = fill("YOUR_ECS_CLUSTER\n", &values()).expect_err("there is no place for the key");
        assert_eq!(
            error.to_string(),
            "the template has no YOUR_NEWRELIC_LICENSE_KEY, so New Relic's license key would not get to the host"
        );
    }
}
