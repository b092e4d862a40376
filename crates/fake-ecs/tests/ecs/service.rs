//! The service itself: what it refuses, how late it is, how much may be asked of it, what it tells, what goes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use fake_ecs::{Behaviour, Config, EventDelivery, Fault, FaultKind, Lag, Outcome};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{HOSTS, Stage, reasons};

/// Everything at once and up to date, and as many calls as one likes.
fn prompt() -> Config {
    Config { throttle: false, ..Config::prompt(1) }
}

#[tokio::test(start_paused = true)]
async fn capacity_is_enforced() {
    let stage = Stage::new(prompt()).await;
    for _ in 0..4 {
        stage.running("batch", 0).await;
    }
    assert_eq!(stage.remaining(0).await, (0, 200));
    assert_eq!(reasons(&stage.try_start("batch", 0).await), ["RESOURCE:CPU"]);
    stage.running("web", 1).await;
    assert_eq!(reasons(&stage.try_start("web", 1).await), ["RESOURCE:PORTS"]);
    stage.register("large", json!({"memory": 1_001, "cpu": 1})).await;
    assert_eq!(reasons(&stage.try_start("large", 2).await), ["RESOURCE:MEMORY"]);
}

#[tokio::test(start_paused = true)]
async fn each_instance_of_a_call_is_started_or_refused_by_itself() {
    let stage = Stage::new(prompt()).await;
    stage.register("privileged", json!({"privileged": true, "memory": 600})).await;
    stage.running("privileged", 0).await;
    stage.ecs.refuse_start(HOSTS[1], "RESOURCE:ENI");
    let all = json!([stage.instances[0], stage.instances[1], stage.instances[2], "nobody"]);
    let request = json!({"taskDefinition": "privileged", "containerInstances": all});
    let answer = stage.ok("StartTask", request).await;
    assert_eq!(answer["tasks"].as_array().map(Vec::len), Some(1));
    assert_eq!(reasons(&answer), ["RESOURCE:MEMORY", "RESOURCE:ENI", "MISSING"]);
}

#[tokio::test(start_paused = true)]
async fn a_draining_instance_takes_nothing_and_keeps_what_it_has() {
    let stage = Stage::new(prompt()).await;
    let task = stage.running("batch", 0).await;
    let request = json!({"containerInstances": [stage.instances[0]], "status": "DRAINING"});
    stage.ok("UpdateContainerInstancesState", request).await;
    assert_eq!(reasons(&stage.try_start("batch", 0).await), ["DRAINING"]);
    assert_eq!(stage.describe(&task).await["lastStatus"], "RUNNING");
    let listed = stage.ok("ListContainerInstances", json!({"status": "DRAINING"})).await;
    assert_eq!(listed["containerInstanceArns"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_refused_by_its_documented_name() {
    let stage = Stage::new(prompt()).await;
    let instance = &stage.instances[0];
    let start = |more: Value| {
        let mut request = json!({"taskDefinition": "batch", "containerInstances": [instance]});
        for (key, value) in more.as_object().expect("members") {
            request[key] = value.clone();
        }
        ("StartTask", request)
    };
    let many = |count: usize| vec!["id"; count];
    for ((operation, request), code) in [
        (start(json!({"cluster": "nobody"})), "ClusterNotFoundException"),
        (start(json!({"taskDefinition": "nobody"})), "ClientException"),
        (start(json!({"containerInstances": many(11)})), "InvalidParameterException"),
        (start(json!({"containerInstances": []})), "InvalidParameterException"),
        (start(json!({"startedBy": "a".repeat(37)})), "InvalidParameterException"),
        (start(json!({"startedBy": "a b"})), "InvalidParameterException"),
        (start(json!({"tags": [{"key": "aws:a", "value": ""}]})), "InvalidParameterException"),
        (start(json!({"networkConfiguration": {}})), "InvalidParameterException"),
        (start(json!({"taskDefinition": 7})), "SerializationException"),
        (("DescribeTasks", json!({"tasks": many(101)})), "InvalidParameterException"),
        (("DescribeTasks", json!({"tasks": []})), "InvalidParameterException"),
        (("ListTasks", json!({"maxResults": 101})), "InvalidParameterException"),
        (("ListTasks", json!({"nextToken": "zz"})), "InvalidParameterException"),
        (("ListTasks", json!({"startedBy": "a", "family": "b"})), "InvalidParameterException"),
        (("StopTask", json!({"task": "nobody"})), "InvalidParameterException"),
        (("DescribeTaskDefinition", json!({"taskDefinition": "nobody"})), "ClientException"),
        (("RegisterTaskDefinition", json!({"family": "a", "containerDefinitions": []})), "ClientException"),
        (("DescribeMoods", json!({})), "UnknownOperationException"),
    ] {
        let (status, answer) = stage.ask(operation, request.clone()).await;
        assert_eq!((status, &answer["__type"]), (400, &json!(code)), "{operation} {request}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_comes_in_pages() {
    let stage = Stage::new(prompt()).await;
    stage.register("small", json!({"cpu": 1, "memory": 6})).await;
    let mut started = BTreeSet::new();
    for number in 0..250 {
        started.insert(stage.start("small", number % 3).await);
    }
    let mut listed = Vec::new();
    let mut sizes = Vec::new();
    let mut request = json!({"startedBy": "test"});
    loop {
        let page = stage.ok("ListTasks", request.clone()).await;
        let arns = page["taskArns"].as_array().expect("ARNs");
        sizes.push(arns.len());
        listed.extend(arns.iter().filter_map(Value::as_str).map(str::to_owned));
        let Some(token) = page.get("nextToken") else { break };
        request["nextToken"] = token.clone();
    }
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), started);
}

#[tokio::test(start_paused = true)]
async fn instances_are_filtered_by_the_cluster_query_language() {
    let stage = Stage::new(prompt()).await;
    let attributes = json!([{"name": "pool", "value": "batch", "targetId": stage.instances[1]}]);
    stage.ok("PutAttributes", json!({"attributes": attributes})).await;
    for (filter, count) in [
        ("attribute:pool == batch", 1),
        ("attribute:pool exists", 1),
        ("attribute:pool !exists", 2),
        ("not(attribute:pool == batch) and agentConnected == true", 2),
        ("ec2InstanceId in [i-1, i-2]", 2),
        ("attribute:ecs.os-type == linux && agentVersion >= 1.74.1", 3),
        ("attribute:ecs.instance-type =~ t3.*", 3),
    ] {
        let listed = stage.ok("ListContainerInstances", json!({"filter": filter})).await;
        assert_eq!(listed["containerInstanceArns"].as_array().map(Vec::len), Some(count), "{filter}");
    }
    let (_, refused) = stage.ask("ListContainerInstances", json!({"filter": "attribute:pool =="})).await;
    assert_eq!(refused["__type"], "InvalidParameterException");
}

#[tokio::test(start_paused = true)]
async fn answers_are_behind_by_their_lag() {
    let lag = Lag { list: 2_000..=2_000, describe: 1_000..=1_000 };
    let stage = Stage::new(Config { lag, ..prompt() }).await;
    sleep(Duration::from_secs(5)).await;
    let task = stage.start("batch", 0).await;
    let look = async || {
        let described = stage.ok("DescribeTasks", json!({"tasks": [task]})).await;
        let listed = stage.ok("ListTasks", json!({})).await["taskArns"] == json!([task]);
        let desired = described["tasks"][0]["desiredStatus"].as_str().map(str::to_owned);
        (listed, desired.unwrap_or_else(|| reasons(&described).concat()))
    };
    assert_eq!(look().await, (false, "MISSING".to_owned()));
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(look().await, (false, "RUNNING".to_owned()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(look().await, (true, "RUNNING".to_owned()));
    stage.stop(&task).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(look().await, (true, "RUNNING".to_owned()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(look().await, (true, "STOPPED".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_empties_and_fills_by_the_second() {
    let stage = Stage::new(Config { throttle: true, ..prompt() }).await;
    let answered = async |operation: &str| {
        let mut count = 0;
        loop {
            let (status, answer) = stage.ask(operation, json!({"tasks": ["id"], "task": "id"})).await;
            if answer["__type"] == "ThrottlingException" {
                assert_eq!(status, 400);
                return count;
            }
            count += 1;
        }
    };
    assert_eq!(answered("DescribeTasks").await, 100);
    assert_eq!(answered("ListTasks").await, 0, "it shares the bucket");
    assert_eq!(answered("StopTask").await, 100, "it has another");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(answered("ListTasks").await, 20);
    assert_eq!(answered("StopTask").await, 40);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(answered("ListTasks").await, 100);
}

#[tokio::test(start_paused = true)]
async fn faults_strike_the_calls_they_are_for() {
    let stage = Stage::new(prompt()).await;
    let target = "AmazonEC2ContainerServiceV20141113.StartTask";
    let request = json!({"taskDefinition": "batch", "containerInstances": [stage.instances[0]]}).to_string();
    for (kind, status, started) in [
        (FaultKind::Throttled, Some(400), false),
        (FaultKind::ServerError, Some(500), false),
        (FaultKind::Unavailable, Some(503), false),
        (FaultKind::NotSent, None, false),
        (FaultKind::AnswerLost, None, true),
    ] {
        let before = stage.ecs.tasks().len();
        stage.ecs.fault(Fault::new(kind.clone()).on("StartTask"));
        stage.ok("ListTasks", json!({})).await;
        let outcome = stage.ecs.call(target, &request).await;
        let answered = match outcome {
            Outcome::Answered(answer) => Some(answer.status),
            Outcome::Broken => None,
        };
        assert_eq!(answered, status, "{kind:?}");
        assert_eq!(stage.ecs.tasks().len() > before, started, "{kind:?}");
    }
    // Whoever gives up does not take it back.
    stage.ecs.fault(Fault::new(FaultKind::Slow { extra_ms: 5_000 }));
    let before = stage.ecs.tasks().len();
    let given_up = tokio::time::timeout(Duration::from_secs(1), stage.ecs.call(target, &request)).await;
    assert!(given_up.is_err());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.ecs.tasks().len(), before + 1);
}

/// The events that are received, as pairs of status and version; those received are deleted.
async fn receive(stage: &Stage, wait_s: u64) -> Vec<Value> {
    let url = "http://localhost/queue/force12-events";
    let ask = async |operation: &str, request: Value| {
        let outcome = stage.ecs.call(&format!("AmazonSQS.{operation}"), request.to_string()).await;
        let Outcome::Answered(answer) = outcome else { panic!("the connection broke") };
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let request = json!({"QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": wait_s});
    let answer = ask("ReceiveMessage", request).await;
    let messages = answer["Messages"].as_array().expect("messages");
    if !messages.is_empty() {
        let entries: Vec<Value> = messages
            .iter()
            .map(|one| json!({"Id": one["MessageId"], "ReceiptHandle": one["ReceiptHandle"]}))
            .collect();
        ask("DeleteMessageBatch", json!({"QueueUrl": url, "Entries": entries})).await;
    }
    let body = |one: &Value| serde_json::from_str(one["Body"].as_str().expect("a body")).expect("JSON");
    messages.iter().map(body).collect()
}

#[tokio::test(start_paused = true)]
async fn every_change_of_a_task_is_told_by_an_event() {
    let delivery = EventDelivery { delay_ms: 10..=10, doubled_per_mille: 0, ..EventDelivery::default() };
    let stage = Stage::new(Config { events: Some(delivery), lag: Lag::none(), ..Config::seeded(1) }).await;
    stage.ecs.set_image("batch", Behaviour::ends(Duration::from_secs(5), 0));
    sleep(Duration::from_secs(1)).await;
    while !receive(&stage, 0).await.is_empty() {}
    let task = stage.start("batch", 0).await;
    let mut told = Vec::new();
    while told.last().is_none_or(|(status, _): &(String, u64)| status != "STOPPED") {
        for event in receive(&stage, 20).await {
            assert_eq!(event["source"], "aws.ecs");
            if event["detail-type"] != "ECS Task State Change" {
                continue;
            }
            let detail = &event["detail"];
            assert_eq!((&event["resources"][0], detail.get("tags")), (&json!(task), None));
            assert!(detail["createdAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{detail}");
            let status = detail["lastStatus"].as_str().expect("a status").to_owned();
            told.push((status, detail["version"].as_u64().expect("a version")));
        }
    }
    let statuses: Vec<&str> = told.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["PENDING", "ACTIVATING", "RUNNING", "STOPPED"]);
    assert_eq!(told.iter().map(|(_, version)| *version).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let before = Instant::now();
    while !receive(&stage, 20).await.is_empty() {}
    assert!(before.elapsed() >= Duration::from_secs(20), "an empty queue is waited for");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_not_deleted_comes_again() {
    let stage = Stage::new(Config { events: Some(EventDelivery::default()), ..prompt() }).await;
    let request = json!({"QueueUrl": "force12-events", "WaitTimeSeconds": 20, "VisibilityTimeout": 5});
    let receive = async || {
        let outcome = stage.ecs.call("AmazonSQS.ReceiveMessage", request.to_string()).await;
        let Outcome::Answered(answer) = outcome else { panic!("the connection broke") };
        answer.json()["Messages"][0].clone()
    };
    let first = receive().await;
    sleep(Duration::from_secs(6)).await;
    let mut again = receive().await;
    while again["MessageId"] != first["MessageId"] {
        again = receive().await;
    }
    assert_eq!(again["Body"], first["Body"]);
    assert_eq!(again["Attributes"]["ApproximateReceiveCount"], "2");
}

#[tokio::test(start_paused = true)]
async fn the_newest_active_revision_is_the_familys() {
    let stage = Stage::new(prompt()).await;
    let second = stage.register("batch", json!({"cpu": 512})).await;
    assert_eq!(second["taskDefinition"]["revision"], 2);
    let newest = async || {
        let described = stage.ok("DescribeTaskDefinition", json!({"taskDefinition": "batch"})).await;
        described["taskDefinition"]["revision"].clone()
    };
    assert_eq!(newest().await, 2);
    stage.ok("DeregisterTaskDefinition", json!({"taskDefinition": "batch:2"})).await;
    assert_eq!(newest().await, 1);
    let request = json!({"taskDefinition": "batch:2", "containerInstances": [stage.instances[0]]});
    let (_, refused) = stage.ask("StartTask", request).await;
    assert_eq!(refused["__type"], "ClientException");
    stage.ok("DeleteTaskDefinitions", json!({"taskDefinitions": ["batch:2"]})).await;
    let third = stage.register("batch", json!({})).await;
    assert_eq!(third["taskDefinition"]["revision"], 3);
    let listed = stage.ok("ListTaskDefinitions", json!({"familyPrefix": "batch", "sort": "DESC"})).await;
    let revisions: Vec<&str> = listed["taskDefinitionArns"]
        .as_array()
        .expect("ARNs")
        .iter()
        .filter_map(|arn| arn.as_str()?.rsplit(':').next())
        .collect();
    assert_eq!(revisions, ["3", "1"]);
}
