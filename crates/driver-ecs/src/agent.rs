//! What the agent of an instance makes of a start while something else stops.
//!
//! ECS counts the resources of a stopping task as free, so that it places another in its room at once; the agent is told of
//! both (<https://aws.amazon.com/about-aws/whats-new/2023/06/amazon-ecs-faster-task-launches-container-instances-prolonged-shutdown/>).
//! Agents before 1.73.0 begin no task while any other one is stopping. 1.73.0 keeps account of the host's cpu, memory and
//! ports, and begins a task as soon as there are enough of these (<https://github.com/aws/amazon-ecs-agent/pull/3759>). That
//! was taken back with 1.73.1 (<https://github.com/aws/amazon-ecs-agent/pull/3781>), and is there since 1.74.1
//! (<https://github.com/aws/amazon-ecs-agent/issues/3925>).

/// Which starts an agent holds back by itself while something stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldsBack {
    /// All.
    All,
    /// Those for which there is not enough cpu or memory beside what stops.
    WithoutRoom,
}

/// By the agent's version. One whose version cannot be read is not known to wait for anything but room, as all of today do.
pub(crate) fn holds_back(version: Option<&str>) -> HoldsBack {
    match version.and_then(parse) {
        Some(version) if version < (1, 73, 0) || ((1, 73, 1)..(1, 74, 1)).contains(&version) => {
            HoldsBack::All
        }
        _ => HoldsBack::WithoutRoom,
    }
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let mut parts = version.splitn(3, '.');
    let mut next = || {
        let digits = parts.next()?;
        let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    };
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_wait_for_all_that_stops_are_told_from_those_that_wait_for_room() {
        for version in ["1.20.0", "1.72.2", "1.73.1", "1.74.0", "v1.70.1", "0.0.0", "1.74.0-rc1"] {
            assert_eq!(holds_back(Some(version)), HoldsBack::All, "{version}");
        }
        for version in ["1.73.0", "1.74.1", "1.75.0", "1.100.0", "2.0.0"] {
            assert_eq!(holds_back(Some(version)), HoldsBack::WithoutRoom, "{version}");
        }
        for version in [None, Some(""), Some("latest"), Some("1.7")] {
            assert_eq!(holds_back(version), HoldsBack::WithoutRoom, "{version:?}");
        }
    }
}
