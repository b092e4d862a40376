//! By what a task is found again, and of which service it is.

use driver::Generation;
use sha2::{Digest, Sha256};

pub(crate) const CLUSTER: &str = "force12.cluster";
pub(crate) const SERVICE: &str = "force12.service";
pub(crate) const GENERATION: &str = "force12.generation";

/// The most characters of a task's `startedBy`
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StartTask.html>).
const STARTED_BY_MAX: usize = 36;
const PREFIX: &str = "force12/";
/// Hexadecimal digits that stand for what is left out of a long name.
const HASH_DIGITS: usize = 8;

/// The `startedBy` of all tasks of a cluster. Names of clusters are of `a-z`, `0-9` and `-`; one that is too long is cut,
/// and told from others that begin alike by its hash.
pub(crate) fn started_by(cluster: &str) -> String {
    let room = STARTED_BY_MAX - PREFIX.len();
    if cluster.len() <= room {
        return format!("{PREFIX}{cluster}");
    }
    let digest = Sha256::digest(cluster.as_bytes());
    let hash = digest.iter().take(HASH_DIGITS / 2).fold(0_u32, |number, &byte| number << 8 | u32::from(byte));
    // An underscore is in no name of a cluster, so that no short name reads like this. ECS takes letters, digits, `-`, `/`
    // and `_` (the same page).
    let first: String = cluster.chars().take(room - HASH_DIGITS - 1).collect();
    format!("{PREFIX}{first}_{hash:08x}")
}

/// What a task is one of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) service: String,
    pub(crate) generation: Generation,
}

impl Identity {
    /// The task's tags.
    pub(crate) fn tags(&self, cluster: &str) -> [(&'static str, String); 3] {
        [
            (CLUSTER, cluster.to_owned()),
            (SERVICE, self.service.clone()),
            (GENERATION, self.generation.as_str().to_owned()),
        ]
    }

    /// `None` unless all tags are there, and are of this cluster.
    pub(crate) fn from_tags(cluster: &str, tags: &[(&str, &str)]) -> Option<Self> {
        let value = |key: &str| tags.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        (value(CLUSTER)? == cluster).then_some(())?;
        Some(Self {
            service: value(SERVICE)?.to_owned(),
            generation: Generation::from_label(value(GENERATION)?),
        })
    }

    /// The task's group.
    pub(crate) fn group(&self) -> String {
        format!("force12:{}:{}", self.service, self.generation)
    }

    pub(crate) fn from_group(group: &str) -> Option<Self> {
        let (service, generation) = group.strip_prefix("force12:")?.split_once(':')?;
        let is_whole = !service.is_empty() && !generation.is_empty() && !generation.contains(':');
        is_whole.then(|| Self { service: service.to_owned(), generation: Generation::from_label(generation) })
    }
}

/// The last part of an ARN: an instance's or a task's id.
pub(crate) fn id_of(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_has_a_started_by_of_its_own_that_fits() {
        assert_eq!(started_by("demo"), "force12/demo");
        let long = "a".repeat(28);
        assert_eq!(started_by(&long), format!("force12/{long}"));
        let [one, other] = ["b", "c"].map(|end| started_by(&format!("{}{end}", "a".repeat(40))));
        assert_eq!(one.len(), STARTED_BY_MAX);
        assert!(one.starts_with("force12/aaaaaaaaaaaaaaaaaaa_"), "{one}");
        assert!(one.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_/".contains(letter)), "{one}");
        assert_ne!(one, other);
        assert_eq!(one, started_by(&format!("{}b", "a".repeat(40))), "it is the same each time");
    }

    fn identity() -> Identity {
        Identity { service: "web".to_owned(), generation: Generation::from_label("0123456789abcdef") }
    }

    #[test]
    fn tags_and_group_are_read_as_written() {
        let tags = identity().tags("demo");
        let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(Identity::from_tags("demo", &tags), Some(identity()));
        assert_eq!(Identity::from_tags("other", &tags), None);
        assert_eq!(Identity::from_group(&identity().group()), Some(identity()));
        for left_out in 0..tags.len() {
            let mut some = tags.clone();
            some.remove(left_out);
            assert_eq!(Identity::from_tags("demo", &some), None);
        }
    }

    #[test]
    fn other_groups_say_nothing() {
        for group in
            ["", "family:web", "service:web", "force12:", "force12:web", "force12:web:", "force12:a:b:c"]
        {
            assert_eq!(Identity::from_group(group), None, "{group}");
        }
    }
}
