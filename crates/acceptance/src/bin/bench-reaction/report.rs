//! What is printed: tables for a terminal or in Markdown, and the same as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::goals::{Goal, goals};
use crate::machine::Machine;
use crate::statistics::Measured;

/// One run.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Which build of the services was measured.
    pub(crate) services: String,
    /// What else ran here; nothing, if the figures are to be worth something.
    pub(crate) disturbed_by: Vec<String>,
    pub(crate) networks: Vec<OnNetwork>,
}

/// All figures of one network.
#[derive(Serialize)]
pub(crate) struct OnNetwork {
    network: &'static str,
    measured: Vec<Measured>,
    goals: Vec<Goal>,
}

impl OnNetwork {
    pub(crate) fn new(network: &'static str, measured: Vec<Measured>) -> Self {
        let goals = goals(&measured);
        Self { network, measured, goals }
    }

    /// Each row: the kind, its figures, and how many times its floor it is at the median.
    fn figures(&self) -> Vec<[String; 8]> {
        let row = |one: &Measured| {
            let floor = self.measured.iter().find(|other| Some(other.kind) == one.kind.floor());
            let number = |ms: f64| format!("{ms:.1}");
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            [
                one.name.to_owned(),
                one.rounds.len().to_string(),
                number(one.p50_ms),
                number(one.p90_ms),
                or_none(one.p99_ms.map(number)),
                number(one.min_ms),
                number(one.max_ms),
                or_none(floor.map(|floor| format!("{:.2}", one.p50_ms / floor.p50_ms))),
            ]
        };
        self.measured.iter().map(row).collect()
    }

    fn verdicts(&self) -> Vec<[String; 3]> {
        let row = |goal: &Goal| {
            let met = match goal.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            };
            let ratio = goal.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            [goal.what.clone(), ratio, met.to_owned()]
        };
        self.goals.iter().map(row).collect()
    }

    /// Where the median goes: each stage's end, and the milliseconds up to it.
    fn stages(&self) -> Vec<[String; 2]> {
        let row = |one: &Measured| {
            let stage = |(name, ms): &(&str, f64)| format!("{name} {ms:.1}");
            [one.name.to_owned(), one.stages.iter().map(stage).collect::<Vec<_>>().join(", ")]
        };
        self.measured.iter().map(row).collect()
    }
}

const FIGURES: [&str; 8] = ["ms", "rounds", "p50", "p90", "p99", "min", "max", "× floor"];
const VERDICTS: [&str; 3] = ["goal", "here", ""];
const STAGES: [&str; 2] = ["medians by stage", "ms since the stage before"];

impl Report {
    /// Whether no goal is missed.
    pub(crate) fn goals_met(&self) -> bool {
        self.networks.iter().flat_map(|network| &network.goals).all(|goal| goal.met != Some(false))
    }

    /// For a terminal.
    pub(crate) fn to_text(&self) -> String {
        self.written(|network| format!("\n{network} network\n"), text_table)
    }

    /// For docs/performance.md.
    pub(crate) fn to_markdown(&self) -> String {
        self.written(|network| format!("\n#### {} network\n", capitalised(network)), markdown_table)
    }

    fn written(&self, head: fn(&str) -> String, table: fn(&[&str], &[Vec<String>]) -> String) -> String {
        let mut text = format!("{}; {}\n", self.machine, self.services);
        for what in &self.disturbed_by {
            let _ = writeln!(text, "DISTURBED: {what}");
        }
        for network in &self.networks {
            text += &head(network.network);
            text += &table(&FIGURES, &network.figures().map_rows());
            text += &table(&VERDICTS, &network.verdicts().map_rows());
            text += &table(&STAGES, &network.stages().map_rows());
        }
        text
    }
}

/// Rows of any width.
trait Rows {
    fn map_rows(self) -> Vec<Vec<String>>;
}

impl<const N: usize> Rows for Vec<[String; N]> {
    fn map_rows(self) -> Vec<Vec<String>> {
        self.into_iter().map(Vec::from).collect()
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The first column to the left, numbers to the right.
fn text_table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].as_str()).chain([head[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            let is_number = cell.starts_with(|first: char| first.is_ascii_digit() || first == '-');
            let _ =
                if is_number { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:width$}  ") };
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = "\n".to_owned() + &line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

fn markdown_table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}
