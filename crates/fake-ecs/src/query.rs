//! The filter of a listing of container instances: expressions of the cluster query language
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-query-language.html>).
//!
//! An expression is `subject operator [argument]`; expressions are joined by `and` (`&&`) and `or` (`||`), turned
//! round by `not` (`!`), and grouped by parentheses. Subjects here: `attribute:<name>`, `agentConnected`,
//! `agentVersion`, `ec2InstanceId` and `runningTasksCount`. Operators: `==`, `!=`, `>`, `>=`, `<`, `<=`, `exists`,
//! `!exists`, `in [a, b]`, `!in [a, b]`, `=~` and `!~` (of a pattern only its plain text and a `.*` at either end).

use crate::instances::{Instance, InstanceView};
use crate::wire::ApiError;

/// An expression that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Is { subject: String, operator: String, arguments: Vec<String> },
}

/// Reads an expression.
pub(crate) fn parse(text: &str) -> Result<Filter, ApiError> {
    let refused = || ApiError::invalid(format!("Invalid filter expression: {text}"));
    let tokens = tokens(text).ok_or_else(refused)?;
    let mut rest = &tokens[..];
    let filter = any(&mut rest).ok_or_else(refused)?;
    if rest.is_empty() { Ok(filter) } else { Err(refused()) }
}

fn tokens(text: &str) -> Option<Vec<String>> {
    const SIGNS: [&str; 15] =
        ["&&", "||", "==", "!=", ">=", "<=", "=~", "!~", ">", "<", "(", ")", "[", "]", ","];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push((*sign).to_owned());
            sign.len()
        } else if first == '!' {
            tokens.push("!".to_owned());
            1
        } else if first == '"' || first == '\'' {
            let end = rest[1..].find(first)? + 2;
            tokens.push(rest[1..end - 1].to_owned());
            end
        } else {
            let is_over = |c: char| c.is_whitespace() || "&|=!<>()[],".contains(c);
            let end = rest.find(is_over).unwrap_or(rest.len()).max(1);
            tokens.push(rest[..end].to_owned());
            end
        };
        rest = rest[end..].trim_start();
    }
    Some(tokens)
}

fn take(rest: &mut &[String], wanted: &[&str]) -> bool {
    let is_next = rest.first().is_some_and(|token| wanted.contains(&token.as_str()));
    if is_next {
        *rest = &rest[1..];
    }
    is_next
}

fn next(rest: &mut &[String]) -> Option<String> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    Some(first.clone())
}

fn any(rest: &mut &[String]) -> Option<Filter> {
    let mut some = vec![all(rest)?];
    while take(rest, &["or", "||"]) {
        some.push(all(rest)?);
    }
    Some(Filter::Any(some))
}

fn all(rest: &mut &[String]) -> Option<Filter> {
    let mut some = vec![one(rest)?];
    while take(rest, &["and", "&&"]) {
        some.push(one(rest)?);
    }
    Some(Filter::All(some))
}

fn one(rest: &mut &[String]) -> Option<Filter> {
    if take(rest, &["not", "!"]) {
        return Some(Filter::Not(Box::new(one(rest)?)));
    }
    if take(rest, &["("]) {
        let inner = any(rest)?;
        return take(rest, &[")"]).then_some(inner);
    }
    let subject = next(rest)?;
    let turned = take(rest, &["!"]);
    let operator = match next(rest)?.as_str() {
        "equals" => "==".to_owned(),
        "not_equals" => "!=".to_owned(),
        other => other.to_owned(),
    };
    let arguments = match operator.as_str() {
        "exists" => Vec::new(),
        "in" => {
            take(rest, &["["]).then_some(())?;
            let mut arguments = vec![next(rest)?];
            while take(rest, &[","]) {
                arguments.push(next(rest)?);
            }
            take(rest, &["]"]).then_some(arguments)?
        }
        "==" | "!=" | ">" | ">=" | "<" | "<=" | "=~" | "!~" => vec![next(rest)?],
        _ => return None,
    };
    let filter = Filter::Is { subject, operator, arguments };
    Some(if turned { Filter::Not(Box::new(filter)) } else { filter })
}

impl Filter {
    pub(crate) fn matches(&self, instance: &Instance, view: &InstanceView) -> bool {
        match self {
            Self::All(some) => some.iter().all(|filter| filter.matches(instance, view)),
            Self::Any(some) => some.iter().any(|filter| filter.matches(instance, view)),
            Self::Not(filter) => !filter.matches(instance, view),
            Self::Is { subject, operator, arguments } => {
                is(value(subject, instance, view).as_deref(), operator, arguments)
            }
        }
    }
}

/// What an instance has for a subject; an attribute without a value has an empty one.
fn value(subject: &str, instance: &Instance, view: &InstanceView) -> Option<String> {
    match subject {
        "agentConnected" => Some(view.agent_connected.to_string()),
        "agentVersion" => Some(instance.spec.agent_version.clone()),
        "ec2InstanceId" => Some(instance.spec.ec2_instance_id.clone()),
        "runningTasksCount" => Some(view.running.to_string()),
        _ => {
            let name = subject.strip_prefix("attribute:")?;
            view.attributes.get(name).map(|value| value.clone().unwrap_or_default())
        }
    }
}

fn is(value: Option<&str>, operator: &str, arguments: &[String]) -> bool {
    let Some(value) = value else { return operator == "!=" || operator == "!~" };
    let argument = arguments.first().map(String::as_str).unwrap_or_default();
    let compared = || numbers(value).cmp(&numbers(argument));
    let like = || {
        let inner = argument.trim_start_matches(".*").trim_end_matches(".*");
        match (argument.starts_with(".*"), argument.ends_with(".*")) {
            (true, true) => value.contains(inner),
            (true, false) => value.ends_with(inner),
            (false, true) => value.starts_with(inner),
            (false, false) => value == inner,
        }
    };
    match operator {
        "exists" => true,
        "==" => value == argument,
        "!=" => value != argument,
        "in" => arguments.iter().any(|argument| argument == value),
        ">" => compared().is_gt(),
        ">=" => compared().is_ge(),
        "<" => compared().is_lt(),
        "<=" => compared().is_le(),
        "=~" => like(),
        "!~" => !like(),
        _ => false,
    }
}

/// For comparing numbers and versions.
fn numbers(text: &str) -> Vec<u64> {
    text.split('.').map(|part| part.parse().unwrap_or_default()).collect()
}
