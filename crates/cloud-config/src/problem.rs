//! What is refused, and why.

use std::fmt;

use crate::auth_data::AuthDataError;

/// One reason to refuse user data. None of them shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The first line is what a host tells the form by.
    #[error(
        "line 1: neither exactly '#cloud-config' nor Ignition; a host leaves the whole file out. (A Butane file says \
         'variant: flatcar'.)"
    )]
    Header,
    /// Butane is for people; hosts read Ignition.
    #[error("this is Butane, which no host reads: render it, or give it to butane, and check what comes out")]
    Butane,
    /// White space that nobody sees, and that becomes part of values.
    #[error("{place}: white space at the end of the line")]
    TrailingSpace {
        /// The line, or the file or unit and its line.
        place: String,
    },
    /// YAML allows no tab where it indents.
    #[error("{place}: a tab; use spaces")]
    Tab {
        /// The line, or the file or unit and its line.
        place: String,
    },
    /// The file has been on Windows.
    #[error("{place}: a carriage return; lines end with a newline alone")]
    CarriageReturn {
        /// The line, or the file or unit and its line.
        place: String,
    },
    /// The last line is not one.
    #[error("no newline at the end")]
    NoFinalNewline,
    /// EC2 refuses to start an instance with it.
    #[error("{bytes} bytes; EC2 takes at most {} of user data", crate::text::USER_DATA_MAX_BYTES)]
    TooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// A value that should have been filled in.
    #[error("{place}: {placeholder} is left in")]
    Placeholder {
        /// The line, or the file or unit and its line.
        place: String,
        /// As it stands there.
        placeholder: String,
    },
    /// A line of the template that is not for hosts.
    #[error("{place}: '{marker}' is left in; render the template")]
    Marker {
        /// The line, or the file or unit and its line.
        place: String,
        /// The line's text.
        marker: String,
    },
    /// A template whose sections do not fit together.
    #[error("line {line}: '{marker}': {why}")]
    Section {
        /// Counted from 1.
        line: usize,
        /// The line's text.
        marker: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A value was given that the template has no place for.
    #[error("the template has no {placeholder}, so {what} would not get to the host")]
    Unused {
        /// What stands for the value in a template.
        placeholder: &'static str,
        /// The value, in words.
        what: &'static str,
    },
    /// What the form's own rules say, with the place.
    #[error("{0}")]
    Structure(String),
    /// systemd-analyze says something of a unit.
    #[error("unit {0}")]
    Unit(String),
    /// Units can't be checked.
    #[error("units can't be checked: {0}")]
    UnitsUnchecked(String),
    /// Nothing names the ECS cluster: the agent would take the one called `default`.
    #[error("no ECS_CLUSTER: the agent would join the cluster 'default'")]
    NoCluster,
    /// A cluster's name that ECS knows none by.
    #[error("{place}: ECS_CLUSTER: {why}")]
    Cluster {
        /// The file or unit and its line.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// The type and the data go together.
    #[error("ECS_ENGINE_AUTH_DATA and ECS_ENGINE_AUTH_TYPE go together: {missing} is missing")]
    HalfAnAuth {
        /// Which one.
        missing: &'static str,
    },
    /// The agent would log a warning, and pull without a login.
    #[error("{place}: ECS_ENGINE_AUTH_DATA: {cause}")]
    AuthData {
        /// The file or unit and its line.
        place: String,
        /// What is wrong with it.
        cause: AuthDataError,
    },
    /// A license key that New Relic's agent would not start with.
    #[error("{place}: New Relic's license key {why}")]
    LicenseKey {
        /// The file or unit and its line.
        place: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// New Relic's agent is started, and nothing gives it a key.
    #[error("New Relic's agent is started without a license key")]
    NoLicenseKey,
}

/// User data is refused: everything that is wrong with it, in the order of its lines where they are known.
#[derive(Debug)]
pub struct Refused {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl Refused {
    pub(crate) fn one(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }

    pub(crate) fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        to.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Refused {}
