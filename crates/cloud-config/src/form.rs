//! Which form of user data a text is.

use crate::problem::Problem;

/// What coreos-cloudinit and cloud-init know their own by: the whole first line.
pub(crate) const HEADER: &str = "#cloud-config";

/// A form of user data, or the source of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// coreos-cloudinit's YAML: CoreOS Container Linux, and still Flatcar.
    CoreOs,
    /// cloud-init's YAML: Amazon Linux.
    CloudInit,
    /// Ignition's JSON: Flatcar.
    Ignition,
    /// The YAML that Ignition is made of.
    Butane,
}

impl Form {
    /// Tells the form as hosts do: by the first line, or by being JSON. The two that share a first line are told apart
    /// by the key `coreos`.
    ///
    /// # Errors
    ///
    /// [`Problem::Header`] if no host would know it.
    pub fn of(text: &str) -> Result<Self, Problem> {
        if text.starts_with('{') {
            return Ok(Self::Ignition);
        }
        let mut lines = text.lines();
        if lines.clone().any(|line| line.starts_with("variant:")) {
            return Ok(Self::Butane);
        }
        if lines.next() != Some(HEADER) {
            return Err(Problem::Header);
        }
        Ok(if lines.any(|line| line.starts_with("coreos:")) { Self::CoreOs } else { Self::CloudInit })
    }

    /// In words, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CoreOs => "cloud-config for coreos-cloudinit",
            Self::CloudInit => "cloud-config for cloud-init",
            Self::Ignition => "Ignition",
            Self::Butane => "Butane",
        }
    }
}
