//! What is configured and what is discovered of an ECS cluster, put together.

use std::sync::Arc;

use controller::{Clock, Controller, Engines, Parts, View};
use driver_ecs::{Discovered, DiscoveredInstance, Revision};
use force12_scheduler::config::{self, Settings};
use force12_scheduler::pool;
use planner::{InstanceState, Resources};

const CONFIG: &str = r#"cluster = "demo"

[ecs]
cluster = "force12-demo"
region = "eu-west-1"
slots_per_instance = 3
reserve = { cpu_millis = 256, memory_mib = 512 }

[[demand_source]]
name = "rng"
url = "http://demand-rng:8081/v1/demand"

[[service]]
name = "web"
priority = 1
task_definition = "web"
demand = { source = "rng", key = "web" }
request = { slots = 1, cpu_millis = 100, memory_mib = 300 }

[[service]]
name = "batch"
priority = 2
task_definition = "batch:7"
fill = true
"#;

fn configured(text: &str) -> Settings {
    config::parse("ecs.toml", text, &|_| None).unwrap().settings
}

fn told(settings: &Settings, found: &Discovered) -> controller::Settings {
    pool::settings(settings, settings.ecs.as_ref().unwrap(), found, Vec::new())
}

fn instance(name: &str, cpu_millis: u64) -> DiscoveredInstance {
    let registered = Resources { slots: Resources::SLOTS_MAX, cpu_millis, memory_mib: 4_096 };
    DiscoveredInstance { name: name.to_owned(), capacity: registered, registered, agent_version: None }
}

fn revision(family: &str, number: i32) -> Arc<Revision> {
    let mut made = Arc::new(Revision::default());
    let revision = Arc::make_mut(&mut made);
    revision.arn = format!("arn:aws:ecs:eu-west-1:123456789012:task-definition/{family}:{number}");
    revision.family = String::from(family);
    revision.revision = number;
    revision.cpu_millis = 250;
    revision.memory_mib = 200;
    revision.stop_timeout_ms = 5_000;
    revision.has_healthcheck = true;
    made
}

fn found() -> Discovered {
    Discovered {
        instances: vec![instance("i-1", 2_048), instance("i-2", 200)],
        task_definitions: [
            ("web".to_owned(), Ok(revision("web", 3))),
            ("batch:7".to_owned(), Err("it is INACTIVE".to_owned())),
        ]
        .into(),
    }
}

#[test]
fn what_is_looked_up_is_what_services_name() {
    let settings = configured(CONFIG);
    let wanted = pool::wanted(&settings);
    assert_eq!(wanted.task_definitions, ["batch:7".to_owned(), "web".to_owned()].into());
    assert_eq!(wanted.first, ["web".to_owned()].into());
    assert!(pool::is_looked_up(&found(), &settings), "in vain, too");
    let mut without = found();
    without.task_definitions.remove("batch:7");
    assert!(!pool::is_looked_up(&without, &settings));
}

#[test]
fn the_controller_is_told_of_instances_and_revisions_as_they_are() {
    let settings = configured(CONFIG);
    assert_eq!(settings.controller.instances, []);
    let told = told(&settings, &found());
    let [one, two] = &told.instances[..] else { panic!("two instances: {told:?}") };
    assert_eq!(one.capacity, Resources { slots: 3, cpu_millis: 1_792, memory_mib: 3_584 });
    assert_eq!(
        two.capacity,
        Resources { slots: 3, cpu_millis: 0, memory_mib: 3_584 },
        "less is reserved than is"
    );
    assert_eq!((one.name.as_str(), one.state), ("i-1", InstanceState::Ready));

    let [batch, web] = &told.services[..] else { panic!("two services: {told:?}") };
    assert_eq!(web.spec.task_definition.as_deref(), Some(&*revision("web", 3).arn));
    assert_eq!(web.spec.stop_grace_ms, 5_000);
    assert_eq!(web.service.request, Resources { slots: 1, cpu_millis: 250, memory_mib: 300 }, "the larger");
    // It has containers perhaps, which are to stay; nothing can be started of it.
    assert_eq!(batch.spec.task_definition.as_deref(), Some("batch:7"));

    let newer =
        Discovered { task_definitions: [("web".to_owned(), Ok(revision("web", 4)))].into(), ..found() };
    let after = self::told(&settings, &newer);
    assert_ne!(
        after.services[1].spec.generation(),
        web.spec.generation(),
        "a new revision is a new generation"
    );
}

#[test]
fn a_task_definition_that_is_found_no_more_stays_what_it_was() {
    let gone = Discovered {
        task_definitions: [("web".to_owned(), Err("it is INACTIVE".to_owned()))].into(),
        ..found()
    };
    let kept = pool::keeping_revisions(&gone, Some(&found()));
    assert_eq!(kept.task_definitions["web"], Ok(revision("web", 3)));
    assert_eq!(pool::keeping_revisions(&gone, None), gone);
}

#[test]
fn changes_are_told_once_and_by_name() {
    assert_eq!(
        pool::changes(None, &found()),
        [
            "i-1, i-2: joined the pool",
            "task definition batch:7: it is INACTIVE; nothing can be started of it",
            "task definition web is arn:aws:ecs:eu-west-1:123456789012:task-definition/web:3",
        ]
    );
    assert_eq!(pool::changes(Some(&found()), &found()), [""; 0]);
    let mut after = found();
    after.instances.remove(0);
    after.instances.extend((10..24).map(|number| instance(&format!("i-{number}"), 1)));
    after.task_definitions.insert("web".to_owned(), Ok(revision("web", 4)));
    assert_eq!(
        pool::changes(Some(&found()), &after),
        [
            "i-10, i-11, i-12, i-13, i-14, i-15, i-16, i-17, i-18, i-19 and 4 more: joined the pool",
            "i-1: left the pool",
            "task definition web is arn:aws:ecs:eu-west-1:123456789012:task-definition/web:4",
        ]
    );
}

#[test]
fn what_does_not_go_with_a_task_definition_is_doubted() {
    let settings = configured(&CONFIG.replace("priority = 1", "priority = 1\nready = \"healthy\""));
    let doubts = pool::doubts(&settings, &found());
    assert_eq!(doubts.len(), 1, "{doubts:?}");
    let doubt = doubts.first().unwrap();
    assert!(doubt.starts_with("service web requests 100 cpu_millis, and arn:aws:ecs:"), "{doubt}");
    let mut sick = (*revision("web", 3)).clone();
    sick.has_healthcheck = false;
    sick.host_ports = [80].into();
    let found = Discovered { task_definitions: [("web".to_owned(), Ok(Arc::new(sick)))].into(), ..found() };
    assert_eq!(pool::doubts(&settings, &found).len(), 3);
}

/// The view of a controller that was told of `settings`, with the containers that a case needs.
fn view(settings: &controller::Settings, lost: &str, holding: &str) -> View {
    let bare = controller::Settings { instances: Vec::new(), services: Vec::new(), ..settings.clone() };
    let parts = Parts {
        settings: bare,
        engines: Engines::default(),
        clock: Clock::system(),
        seed: 1,
        epoch: "test".to_owned(),
    };
    let (_, handle) = Controller::new(parts).unwrap();
    let mut view = (*handle.view()).clone();
    view.instances = settings
        .instances
        .iter()
        .map(|instance| {
            let containers = (instance.name == holding)
                .then(|| controller::ContainerView {
                    name: "web/0".to_owned(),
                    id: None,
                    service: "web".into(),
                    ordinal: 0,
                    phase: planner::Phase::Running,
                    since: planner::Millis(0),
                    outdated: false,
                    fault: None,
                })
                .into_iter()
                .collect();
            Arc::new(controller::InstanceView {
                name: instance.name.as_str().into(),
                state: if instance.name == lost { InstanceState::Lost } else { InstanceState::Ready },
                reason: None,
                since: planner::Millis(0),
                capacity: instance.capacity,
                used: Resources::ZERO,
                containers,
                strays: Vec::new(),
            })
        })
        .collect();
    view
}

#[test]
fn an_instance_that_is_gone_leaves_when_it_is_empty_or_lost() {
    let settings = configured(CONFIG);
    let before = told(&settings, &found());
    let gone = Discovered { instances: vec![instance("i-2", 200)], ..found() };
    assert_eq!(pool::leaving(&before, &found(), &view(&before, "", "i-1")), []);
    assert_eq!(pool::leaving(&before, &gone, &view(&before, "", "i-2")), [], "it is empty");

    let staying = pool::leaving(&before, &gone, &view(&before, "i-1", "i-1"));
    assert_eq!(staying.len(), 1, "the controller is to be told first that it is given up");
    assert_eq!((staying[0].name.as_str(), staying[0].state), ("i-1", InstanceState::Draining));
    let between = pool::settings(&settings, settings.ecs.as_ref().unwrap(), &gone, staying);
    assert_eq!(between.instances.len(), 2);
    assert_eq!(pool::leaving(&between, &gone, &view(&between, "", "i-1")).len(), 1, "it is still there");
    assert_eq!(pool::leaving(&between, &gone, &view(&between, "i-1", "i-1")), []);
}
