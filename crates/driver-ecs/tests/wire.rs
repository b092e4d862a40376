//! The wire, against moto (<https://docs.getmoto.org>), which others have written after AWS's own models: what we send is
//! understood, and what it answers is read. It enforces little else; `fake-ecs` does.
//!
//! `FORCE12_MOTO_SERVER` names its server; by default that of the environment that `scripts/test` makes.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_ecs::config::{BehaviorVersion, Region};
use aws_sdk_ecs::types::{Compatibility, ContainerDefinition, TaskField};
use driver::{ContainerId, ContainerSpec, Driver, Outcome, Start, StopOptions};
use driver_ecs::{EcsConfig, EcsDriver, Limits, Reserve, Wanted};
use futures_util::StreamExt as _;
use planner::{Phase, Resources};

const CLUSTER: &str = "wire";
const REGION: &str = "eu-west-1";
const PATIENCE: Duration = Duration::from_secs(30);

/// moto, for as long as it lives.
struct Moto {
    server: Child,
    url: String,
}

impl Moto {
    async fn start() -> Self {
        let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/moto-venv/bin/moto_server");
        let program = std::env::var_os("FORCE12_MOTO_SERVER").map_or_else(|| default.into(), PathBuf::from);
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            listener.local_addr().expect("it has one").port()
        };
        let server = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; scripts/test installs it, or name it: FORCE12_MOTO_SERVER=…",
                    program.display()
                )
            });
        let moto = Self { server, url: format!("http://127.0.0.1:{port}") };
        let client = client();
        let answers = async {
            // A task is described as running until it is stopped, however often.
            let transition =
                r#"{"model_name": "ecs::task", "transition": {"progression": "manual", "times": 1000000}}"#;
            while client
                .post(format!("{}/moto-api/state-manager/set-transition", moto.url))
                .header("content-type", "application/json")
                .body(transition)
                .send()
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.expect("moto answers");
        moto
    }

    /// Two EC2 instances, by id. A client of EC2's own would be the largest crate of all, for this one call.
    async fn hosts(&self) -> Vec<String> {
        let scope = format!("test/20260101/{REGION}/ec2/aws4_request");
        let answer = client()
            .post(&self.url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
            )
            .body("Action=RunInstances&ImageId=ami-12c6146b&MinCount=2&MaxCount=2&Version=2016-11-15")
            .send()
            .await
            .expect("moto answers");
        let answer = answer.text().await.expect("it is text");
        let ids = answer.split("<instanceId>").skip(1).filter_map(|rest| rest.split('<').next());
        let mut ids: Vec<String> = ids.map(str::to_owned).collect();
        ids.sort();
        assert_eq!(ids.len(), 2, "{answer}");
        ids
    }

    fn ecs(&self) -> aws_sdk_ecs::Client {
        let config = aws_sdk_ecs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(driver_ecs::https().expect("a client is built"))
            .endpoint_url(&self.url);
        aws_sdk_ecs::Client::from_conf(config.build())
    }

    fn sqs(&self) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
            .region(aws_sdk_sqs::config::Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(driver_ecs::https().expect("a client is built"))
            .endpoint_url(&self.url);
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    fn driver(&self, queue: Option<String>) -> Arc<EcsDriver> {
        let config = EcsConfig {
            cluster: "demo".to_owned(),
            ecs_cluster: CLUSTER.to_owned(),
            region: Some(REGION.to_owned()),
            endpoint_url: Some(self.url.clone()),
            slots_per_instance: 3,
            reserve: Reserve::default(),
            instance_filter: None,
            events_queue_url: queue,
            stop_before_start: false,
            limits: Limits { settle_ms: 0, ..Limits::default() },
        };
        let driver = EcsDriver::with_http_client(config, driver_ecs::https().expect("a client is built"), 1);
        driver.want(Wanted {
            task_definitions: BTreeSet::from(["workload".to_owned(), "nowhere".to_owned()]),
            first: BTreeSet::new(),
        });
        driver
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .tls_backend_preconfigured(no_tls())
        .no_proxy()
        .build()
        .expect("a client is built")
}

/// Nothing here is encrypted; a client has to have some TLS all the same.
fn no_tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// A cluster of these instances, and a task definition.
async fn furnish(ecs: &aws_sdk_ecs::Client, hosts: &[String]) -> String {
    ecs.create_cluster().cluster_name(CLUSTER).send().await.expect("a cluster is made");
    for instance in hosts {
        ecs.register_container_instance()
            .cluster(CLUSTER)
            .instance_identity_document(format!(r#"{{"instanceId": "{instance}"}}"#))
            .send()
            .await
            .expect("an instance is registered");
    }
    let container = ContainerDefinition::builder()
        .name("workload")
        .image("force12/workload:latest")
        .cpu(256)
        .memory(128)
        .stop_timeout(2)
        .build();
    let registered = ecs
        .register_task_definition()
        .family("workload")
        .requires_compatibilities(Compatibility::Ec2)
        .container_definitions(container)
        .send()
        .await
        .expect("a task definition is registered");
    registered.task_definition.and_then(|it| it.task_definition_arn).expect("it has a name")
}

fn start(instance: &str, task_definition: &str) -> Start {
    let spec =
        ContainerSpec { task_definition: Some(task_definition.to_owned()), ..ContainerSpec::default() };
    Start {
        service: "web".to_owned(),
        instance: instance.to_owned(),
        ordinal: 0,
        request: Resources::ONE_SLOT,
        generation: spec.generation(),
        spec: Arc::new(spec),
    }
}

async fn until(
    driver: &EcsDriver,
    what: &str,
    holds: impl Fn(&driver::Observation) -> bool,
) -> driver::Observation {
    let mut events = driver.events();
    let looking = async {
        loop {
            events.next().await;
            let observed = driver.observe().await.expect("the cluster can be observed");
            if holds(&observed) {
                return observed;
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

#[tokio::test]
async fn what_is_sent_is_understood_and_what_is_answered_is_read() {
    let moto = Moto::start().await;
    let ecs = moto.ecs();
    let hosts = moto.hosts().await;
    let revision = furnish(&ecs, &hosts).await;
    let driver = moto.driver(None);

    let seen = driver.look().await.expect("the cluster can be looked at");
    let names: Vec<&str> = seen.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, hosts);
    assert!(seen.instances.iter().all(|instance| {
        instance.registered.slots == 3
            && instance.registered.cpu_millis > 0
            && instance.registered.memory_mib > 0
    }));
    let found = seen.task_definitions["workload"].as_ref().expect("it is there");
    assert_eq!(
        (found.arn.as_str(), found.revision, found.family.as_str()),
        (revision.as_str(), 1, "workload")
    );
    assert_eq!((found.cpu_millis, found.memory_mib, found.stop_timeout_ms), (250, 128, 2_000));
    assert_eq!(found.images, ["force12/workload:latest"]);
    seen.task_definitions["nowhere"].as_ref().expect_err("it is not there");

    let spec =
        |name: &str| ContainerSpec { task_definition: Some(name.to_owned()), ..ContainerSpec::default() };
    driver.prepare(&spec(&revision)).await.expect("it can be started");
    let missing = driver.prepare(&spec("nowhere:1")).await.expect_err("it cannot be started");
    assert_eq!(missing.code(), "image_missing", "{missing}");

    assert_eq!(driver.observe().await.expect("it can be observed").containers, []);
    // Two of a kind go with one call.
    let starts = [start(names[0], &revision), start(names[1], &revision)];
    let (one, other) = tokio::join!(driver.start(&starts[0], None), driver.start(&starts[1], None));
    let ids: [ContainerId; 2] = [one, other].map(|started| started.expect("it starts").id);
    let observed = driver.observe().await.expect("it can be observed");
    assert_eq!(observed.containers.len(), 2);
    for (id, instance) in ids.iter().zip(&names) {
        let container = observed.containers.iter().find(|it| it.id == *id).expect("it is there");
        assert_eq!((container.phase, container.instance.as_str()), (Phase::Running, *instance));
        assert_eq!((container.service.as_str(), &container.generation), ("web", &starts[0].generation));
    }
    let described = ecs
        .describe_tasks()
        .cluster(CLUSTER)
        .tasks(ids[0].as_str())
        .include(TaskField::Tags)
        .send()
        .await
        .expect("a task is described");
    let task = &described.tasks()[0];
    assert_eq!(task.started_by(), Some("force12/demo"));
    assert_eq!(task.group(), Some(format!("force12:web:{}", starts[0].generation).as_str()));
    let tags: Vec<_> = task.tags().iter().filter_map(|tag| Some((tag.key()?, tag.value()?))).collect();
    assert!(
        tags.contains(&("force12.cluster", "demo")) && tags.contains(&("force12.service", "web")),
        "{tags:?}"
    );

    // Another driver, as after a restart, finds them.
    let next = moto.driver(None);
    let found = next.observe().await.expect("it can be observed");
    assert_eq!(found.containers.len(), 2);
    drop(next);

    let stopped = driver.stop(&ids[0], StopOptions { grace_ms: 2_000 }).await;
    assert_eq!(stopped.expect("it stops"), Outcome::Done);
    assert_eq!(driver.stop(&ids[0], StopOptions { grace_ms: 0 }).await.expect("it is so"), Outcome::Already);
    let observed = driver.observe().await.expect("it can be observed");
    let ended = observed.containers.iter().find(|it| it.id == ids[0]).expect("it is there");
    let exit = ended.exit.as_ref().expect("it has ended");
    assert!(exit.message.as_deref().is_some_and(|words| words.contains("force12")), "{exit:?}");
    assert_eq!(driver.remove(&ids[0]).await.expect("it goes"), Outcome::Done);
}

#[tokio::test]
async fn events_are_taken_from_the_queue() {
    let moto = Moto::start().await;
    let (ecs, sqs) = (moto.ecs(), moto.sqs());
    let hosts = moto.hosts().await;
    let revision = furnish(&ecs, &hosts).await;
    let queue = sqs.create_queue().queue_name("events").send().await.expect("a queue is made");
    let queue = queue.queue_url.expect("it has a url");
    let driver = moto.driver(Some(queue.clone()));
    driver.observe().await.expect("it can be observed");
    let started = driver.start(&start(&hosts[0], &revision), None).await.expect("it starts");
    let told = format!(
        r#"{{"version": "0", "source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": {{
            "clusterArn": "arn:aws:ecs:{REGION}:123456789012:cluster/{CLUSTER}", "taskArn": "{}", "version": 9,
            "lastStatus": "STOPPED", "desiredStatus": "STOPPED", "startedBy": "force12/demo",
            "stopCode": "EssentialContainerExited", "stoppedReason": "Essential container in task exited",
            "containers": [{{"name": "workload", "exitCode": 7}}]}}}}"#,
        started.id
    );
    for body in ["nonsense", &told] {
        sqs.send_message().queue_url(&queue).message_body(body).send().await.expect("it is sent");
    }
    let ended =
        until(&driver, "the event is heard", |observed| observed.containers[0].phase == Phase::Exited).await;
    assert_eq!(ended.containers[0].exit.as_ref().expect("it has ended").code, 7);
    let is_empty = async {
        loop {
            let attributes = sqs
                .get_queue_attributes()
                .queue_url(&queue)
                .attribute_names(aws_sdk_sqs::types::QueueAttributeName::All)
                .send()
                .await
                .expect("the queue tells of itself");
            let count = |name| attributes.attributes().and_then(|all| all.get(&name)).cloned();
            let names = [
                aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessages,
                aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            ];
            if names.map(count).iter().all(|count| count.as_deref() == Some("0")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_empty).await.expect("what was read is taken off, the nonsense too");
}
