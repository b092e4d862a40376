//! Quotas: a bucket of tokens for each family of calls.
//!
//! Sizes and rates are the documented ones, which hold for an account and region
//! (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html>): "a set number of tokens is
//! added back to it every second until it reaches its maximum capacity".

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Calls that share a bucket, as the page names them.
#[derive(Debug)]
struct Family {
    name: &'static str,
    operations: &'static [&'static str],
    /// Calls at once.
    burst: u64,
    /// Calls a second.
    sustained: u64,
}

/// Those of the page that this fake answers. The page writes `UpdateContainerInstancesStates`.
const FAMILIES: &[Family] = &[
    Family {
        name: "cluster modify",
        operations: &["CreateCluster", "DeleteCluster", "UpdateCluster"],
        burst: 20,
        sustained: 1,
    },
    Family {
        name: "cluster read",
        operations: &["DescribeClusters", "ListClusters"],
        burst: 50,
        sustained: 20,
    },
    Family {
        name: "task definition modify",
        operations: &["DeregisterTaskDefinition", "RegisterTaskDefinition"],
        burst: 20,
        sustained: 1,
    },
    Family {
        name: "task definition read",
        operations: &["DescribeTaskDefinition", "ListTaskDefinitions", "ListTaskDefinitionFamilies"],
        burst: 50,
        sustained: 20,
    },
    Family {
        name: "task definition deletion",
        operations: &["DeleteTaskDefinitions"],
        burst: 5,
        sustained: 1,
    },
    Family { name: "tag modify", operations: &["TagResource", "UntagResource"], burst: 20, sustained: 10 },
    Family { name: "tag read", operations: &["ListTagsForResource"], burst: 50, sustained: 20 },
    Family {
        name: "cluster resource modify",
        operations: &[
            "DeleteAttributes",
            "DeregisterContainerInstance",
            "PutAttributes",
            "RunTask",
            "StartTask",
            "StopTask",
            "UpdateContainerInstancesState",
        ],
        burst: 100,
        sustained: 40,
    },
    Family {
        name: "cluster resource read",
        operations: &["DescribeContainerInstances", "DescribeTasks", "ListContainerInstances", "ListTasks"],
        burst: 100,
        sustained: 20,
    },
    Family {
        name: "service modify",
        operations: &["CreateService", "DeleteService", "UpdateService"],
        burst: 50,
        sustained: 5,
    },
    Family {
        name: "service read",
        operations: &["DescribeServices", "ListServices"],
        burst: 100,
        sustained: 20,
    },
];

/// The buckets of one account in one region.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    by_family: BTreeMap<&'static str, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u64,
    /// When tokens were last added.
    filled_at: Instant,
}

impl Buckets {
    /// Takes a token for a call; false if there is none. What is in no family is not counted.
    pub(crate) fn take(&mut self, operation: &str) -> bool {
        let Some(family) = FAMILIES.iter().find(|family| family.operations.contains(&operation)) else {
            return true;
        };
        let now = Instant::now();
        let full = Bucket { tokens: family.burst, filled_at: now };
        let bucket = self.by_family.entry(family.name).or_insert(full);
        let seconds = (now - bucket.filled_at).as_secs();
        bucket.filled_at += Duration::from_secs(seconds);
        bucket.tokens = (bucket.tokens + seconds.saturating_mul(family.sustained)).min(family.burst);
        let taken = bucket.tokens > 0;
        bucket.tokens -= u64::from(taken);
        taken
    }
}
