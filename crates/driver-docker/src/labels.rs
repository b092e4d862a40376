//! The labels and the name by which a container is found again.

use std::collections::HashMap;

use driver::{Generation, Start};

pub(crate) const CLUSTER: &str = "force12.cluster";
const SERVICE: &str = "force12.service";
const INSTANCE: &str = "force12.instance";
const GENERATION: &str = "force12.generation";
/// All of them: a container of ours carries each, its image none.
const KEYS: [&str; 4] = [CLUSTER, SERVICE, INSTANCE, GENERATION];

/// What a container's labels say it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) generation: Generation,
}

impl Identity {
    pub(crate) fn of_start(cluster: &str, start: &Start) -> Self {
        Self {
            cluster: cluster.to_owned(),
            service: start.service.clone(),
            instance: start.instance.clone(),
            generation: start.generation.clone(),
        }
    }

    /// `None` if any label is missing.
    pub(crate) fn from_labels(labels: &HashMap<String, String>) -> Option<Self> {
        Some(Self {
            cluster: labels.get(CLUSTER)?.clone(),
            service: labels.get(SERVICE)?.clone(),
            instance: labels.get(INSTANCE)?.clone(),
            generation: Generation::from_label(labels.get(GENERATION)?),
        })
    }

    pub(crate) fn to_labels(&self) -> HashMap<String, String> {
        let values = [&self.cluster, &self.service, &self.instance, self.generation.as_str()];
        KEYS.iter().zip(values).map(|(&key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// The name of the container with this number.
    pub(crate) fn name(&self, ordinal: u32) -> String {
        format!("{}{ordinal}", self.name_stem())
    }

    /// The number in a name of our making, or `None` for any other name.
    pub(crate) fn ordinal(&self, name: &str) -> Option<u32> {
        let digits = name.strip_prefix(&self.name_stem())?;
        // As we would write it: no sign, no leading zeros.
        digits.parse().ok().filter(|ordinal: &u32| ordinal.to_string() == digits)
    }

    /// The names of clusters, services and instances are of `a-z`, `0-9` and `-`: a dot comes only between them.
    fn name_stem(&self) -> String {
        format!("force12.{}.{}.{}.", self.cluster, self.service, self.instance)
    }
}

/// The first of our labels that an image carries, if it does: labels of its containers then say nothing.
pub(crate) fn first_of_ours(image_labels: &HashMap<String, String>) -> Option<&'static str> {
    KEYS.into_iter().find(|&key| image_labels.contains_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: "demo".to_owned(),
            service: "web".to_owned(),
            instance: "instance-1".to_owned(),
            generation: Generation::from_label("0123456789abcdef"),
        }
    }

    #[test]
    fn labels_are_read_as_written() {
        let labels = identity().to_labels();
        assert_eq!(labels.len(), 4);
        assert_eq!(labels["force12.cluster"], "demo");
        assert_eq!(labels["force12.service"], "web");
        assert_eq!(labels["force12.instance"], "instance-1");
        assert_eq!(labels["force12.generation"], "0123456789abcdef");
        assert_eq!(Identity::from_labels(&labels), Some(identity()));
    }

    #[test]
    fn three_labels_of_four_are_no_identity() {
        for key in KEYS {
            let mut labels = identity().to_labels();
            labels.remove(key);
            assert_eq!(Identity::from_labels(&labels), None, "without {key}");
        }
    }

    #[test]
    fn a_name_gives_its_number_back() {
        assert_eq!(identity().name(12), "force12.demo.web.instance-1.12");
        for ordinal in [0, 7, u32::MAX] {
            assert_eq!(identity().ordinal(&identity().name(ordinal)), Some(ordinal));
        }
    }

    #[test]
    fn no_two_identities_share_a_name() {
        let named = |service: &str, instance: &str| {
            Identity { service: service.to_owned(), instance: instance.to_owned(), ..identity() }.name(0)
        };
        assert_ne!(named("web", "eu-1"), named("web-eu", "1"));
        assert_eq!(Identity { instance: "1".to_owned(), ..identity() }.ordinal(&named("web", "1-0")), None);
    }

    #[test]
    fn other_names_have_no_number() {
        for name in [
            "",
            "quirky_dijkstra",
            "force12.demo.web.instance-1.",
            "force12.demo.web.instance-1.01",
            "force12.demo.web.instance-1.+1",
            "force12.demo.web.instance-1.4294967296",
            "force12.demo.web.instance-1.1.old",
            "force12-demo-web-instance-1-1",
            "force12.demo.web.instance-11.1",
            "force12.other.web.instance-1.1",
        ] {
            assert_eq!(identity().ordinal(name), None, "{name}");
        }
    }

    #[test]
    fn any_one_label_spoils_an_image() {
        assert_eq!(first_of_ours(&HashMap::new()), None);
        let others = HashMap::from([("org.opencontainers.image.title".to_owned(), "web".to_owned())]);
        assert_eq!(first_of_ours(&others), None);
        for key in KEYS {
            assert_eq!(first_of_ours(&HashMap::from([(key.to_owned(), String::new())])), Some(key));
        }
    }
}
