//! Values that do not hold, by the key that holds them.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, Mistake, line_and_column};

/// What was found wrong so far in a text that could be read.
#[derive(Debug)]
pub struct Problems<'text> {
    file: &'text str,
    text: &'text str,
    document: Option<Spanned<DeTable<'text>>>,
    errors: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl<'text> Problems<'text> {
    /// Nothing yet, in `text` from `file`.
    pub fn new(file: &'text str, text: &'text str) -> Self {
        Self { file, text, document: DeTable::parse(text).ok(), errors: Vec::new(), warnings: Vec::new() }
    }

    /// Something wrong; `message` says how to mend it.
    pub fn error(&mut self, place: &Place, message: String) {
        let mistake = self.mistake(place, message);
        self.errors.push(mistake);
    }

    /// Something doubtful, which refuses nothing.
    pub fn warning(&mut self, place: &Place, message: String) {
        let mistake = self.mistake(place, message);
        self.warnings.push(mistake);
    }

    /// An error unless `value` is within `allowed`.
    pub fn range(&mut self, value: u64, allowed: &RangeInclusive<u64>, place: &Place) {
        if !allowed.contains(&value) {
            let (least, most) = (allowed.start(), allowed.end());
            self.error(place, format!("{value} is out of range; give {least} to {most}"));
        }
    }

    /// The warnings, if nothing is wrong. Both are in the order of the file.
    pub fn finish(mut self) -> Result<Vec<Mistake>, ConfigError> {
        // The sorts are stable, so one place's mistakes stay in the order found.
        self.errors.sort_by_key(|mistake| mistake.place);
        self.warnings.sort_by_key(|mistake| mistake.place);
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(ConfigError::Invalid(self.errors)) }
    }

    fn mistake(&self, place: &Place, message: String) -> Mistake {
        let start = self.document.as_ref().and_then(|document| place.start_in(document.get_ref()));
        Mistake {
            file: self.file.to_owned(),
            place: start.map(|start| line_and_column(self.text, start)),
            key: place.words.clone(),
            message,
        }
    }
}

/// A place in a file: as words for people, and as steps by which it is found.
#[derive(Clone, Debug)]
pub struct Place {
    words: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Item(usize),
}

impl Place {
    /// The file as a whole.
    pub fn top() -> Self {
        Self { words: String::new(), steps: Vec::new() }
    }

    /// The `index`-th `[[kind]]`, which is called by its name where it has one.
    pub fn table(kind: &'static str, index: usize, name: &str) -> Self {
        let words = if name.is_empty() { format!("{kind}[{index}]") } else { format!("{kind}.{name}") };
        Self { words, steps: vec![Step::Key(kind.to_owned()), Step::Item(index)] }
    }

    /// A key of it.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let words = if self.words.is_empty() { key.to_owned() } else { format!("{}.{key}", self.words) };
        self.step(words, Step::Key(key.to_owned()))
    }

    /// An item of its list, from 0.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        self.step(format!("{}[{index}]", self.words), Step::Item(index))
    }

    fn step(&self, words: String, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { words, steps }
    }

    /// The byte at which the deepest part of this place that is written down begins; `None` if no part of it is.
    fn start_in(&self, document: &DeTable<'_>) -> Option<usize> {
        let mut start = None;
        let mut value: Option<&DeValue<'_>> = None;
        for step in &self.steps {
            let next = match (step, value) {
                (Step::Key(key), None) => document.get(key.as_str()),
                (Step::Key(key), Some(value)) => value.get(key.as_str()),
                (Step::Item(index), Some(value)) => value.get(*index),
                (Step::Item(_), None) => None,
            };
            let Some(next) = next else { break };
            start = Some(next.span().start);
            value = Some(next.get_ref());
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "a = 5\n[[item]]\nname = \"x\"\nlimits = { low = 1, high = 2 }\nhosts = [\"p\", \"q\"]\n";

    #[test]
    fn a_mistake_is_placed_at_its_value_or_as_near_as_anything_is_written() {
        let item = Place::table("item", 0, "x");
        let mut problems = Problems::new("a.toml", TEXT);
        problems.error(&item.key("hosts").item(1), "no".to_owned());
        problems.error(&item.key("limits").key("high"), "no".to_owned());
        problems.error(&item.key("limits").key("middle"), "no".to_owned());
        problems.error(&item.key("absent"), "no".to_owned());
        problems.range(5, &(6..=9), &Place::top().key("a"));
        problems.range(6, &(6..=9), &Place::top().key("a"));
        problems.error(&Place::top(), "no".to_owned());
        assert_eq!(
            problems.finish().unwrap_err().to_string(),
            "config a.toml: no\n\
             config a.toml:1:5: a: 5 is out of range; give 6 to 9\n\
             config a.toml:2:1: item.x.absent: no\n\
             config a.toml:4:10: item.x.limits.middle: no\n\
             config a.toml:4:28: item.x.limits.high: no\n\
             config a.toml:5:15: item.x.hosts[1]: no"
        );
    }

    #[test]
    fn warnings_refuse_nothing() {
        let mut problems = Problems::new("a.toml", TEXT);
        problems.warning(&Place::top().key("a"), "odd".to_owned());
        assert_eq!(super::super::lines(&problems.finish().unwrap()), "config a.toml:1:5: a: odd");
    }
}
