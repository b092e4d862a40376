"""The policies of cloud-config/ecs: nothing in them is without effect, and nothing reaches further than it has to.

IAM takes a statement whose condition key its action does not know, and then never allows anything by it. So what each action
knows stands here.
"""

import json
import unittest
from pathlib import Path

import botocore
import botocore.session

from ecs.files import WORKLOADS
from ecs.tests.support import ACCOUNT, CLUSTER, REGION, files

POLICIES = ("scheduler", "execution", "instance", "operator")

# What an action works on (none: only Resource "*" means anything), and the condition keys of ours that it knows.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html
ECS = {
    "CreateService": ({"service"}, {"ecs:cluster"}),
    "DeleteService": ({"service"}, {"ecs:cluster"}),
    "DeleteTaskDefinitions": ({"task-definition"}, set()),
    "DeregisterContainerInstance": ({"cluster"}, set()),
    "DeregisterTaskDefinition": (set(), set()),
    "DescribeClusters": ({"cluster"}, set()),
    "DescribeContainerInstances": ({"container-instance"}, {"ecs:cluster"}),
    "DescribeServices": ({"service"}, {"ecs:cluster"}),
    "DescribeTaskDefinition": (set(), set()),
    "DescribeTasks": ({"task"}, {"ecs:cluster"}),
    "DiscoverPollEndpoint": (set(), set()),
    "ListContainerInstances": ({"cluster"}, set()),
    "ListTaskDefinitions": (set(), set()),
    # Its container instance is that of the filter; AWS's own example names "*".
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/security_iam_id-based-policy-examples.html
    "ListTasks": (set(), {"ecs:cluster"}),
    "Poll": ({"container-instance"}, {"ecs:cluster"}),
    "RegisterContainerInstance": ({"cluster"}, set()),
    "RegisterTaskDefinition": ({"task-definition"}, set()),
    "StartTask": ({"task-definition"}, {"ecs:cluster", "ecs:container-instances", "aws:RequestTag"}),
    "StartTelemetrySession": ({"container-instance"}, {"ecs:cluster"}),
    "StopTask": ({"task"}, {"ecs:cluster"}),
    "SubmitAttachmentStateChanges": ({"cluster"}, set()),
    "SubmitContainerStateChange": ({"cluster"}, set()),
    "SubmitTaskStateChange": ({"cluster"}, set()),
    "TagResource": ({"service", "task", "task-definition"}, {"ecs:CreateAction", "aws:RequestTag"}),
    "UpdateContainerInstancesState": ({"container-instance"}, {"ecs:cluster"}),
    "UpdateService": ({"service"}, {"ecs:cluster"}),
}
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsidentityandaccessmanagementiam.html and its
# neighbours, for the others. All of these work on one thing by its name.
OTHERS = {
    "iam:PassRole": {"iam:PassedToService"},
    "iam:AttachRolePolicy": {"iam:PolicyARN"},
    "iam:DetachRolePolicy": {"iam:PolicyARN"},
}
# They know no resource, or one cannot be named ahead.
EVERYTHING = {"ecr:GetAuthorizationToken", "logs:DescribeLogGroups"}


def statements(name):
    return files().json(f"iam/{name}.json")["Statement"]


def listed(value):
    return value if isinstance(value, list) else [value]


def actions(name):
    return {action for statement in statements(name) for action in listed(statement["Action"])}


def condition_keys(statement):
    return {key.split("/")[0] for keys in statement.get("Condition", {}).values() for key in keys}


class Policies(unittest.TestCase):
    def each_statement(self):
        for name in POLICIES:
            for statement in statements(name):
                with self.subTest(policy=name, statement=statement["Sid"]):
                    yield statement

    def test_they_allow_by_full_names_only(self):
        for statement in self.each_statement():
            self.assertEqual(statement["Effect"], "Allow")
            for action in listed(statement["Action"]):
                self.assertNotIn("*", action)
            self.assertTrue(set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"})

    def test_every_condition_is_one_that_the_action_knows(self):
        for statement in self.each_statement():
            for action in listed(statement["Action"]):
                service, _, name = action.partition(":")
                known = ECS[name][1] if service == "ecs" else OTHERS.get(action, set())
                self.assertLessEqual(condition_keys(statement), known, action)

    def test_every_resource_is_of_a_kind_that_the_action_works_on(self):
        for statement in self.each_statement():
            resources = listed(statement["Resource"])
            for action in listed(statement["Action"]):
                service, _, name = action.partition(":")
                if service == "ecs":
                    kinds = ECS[name][0]
                    expected = {"*"} if not kinds else None
                else:
                    kinds, expected = None, {"*"} if action in EVERYTHING else None
                if expected:
                    self.assertEqual(set(resources), expected, action)
                    continue
                for resource in resources:
                    self.assertNotEqual(resource, "*", action)
                    _, _, of, region, account, kind = resource.split(":", 5)
                    self.assertEqual(of, service)
                    self.assertIn(region, ("", REGION))
                    self.assertEqual(account, ACCOUNT)
                    if kinds:
                        self.assertIn(kind.split("/")[0], kinds, action)

    def test_they_stay_in_the_cluster(self):
        inside = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"
        for statement in self.each_statement():
            for action in listed(statement["Action"]):
                if not action.startswith("ecs:"):
                    continue
                if "ecs:cluster" in ECS[action[4:]][1]:
                    self.assertEqual(statement["Condition"]["ArnEquals"]["ecs:cluster"], inside, action)
                for resource in listed(statement["Resource"]):
                    self.assertTrue(resource == "*" or CLUSTER in resource, resource)

    def test_the_scheduler_starts_nothing_but_its_own(self):
        (statement,) = [one for one in statements("scheduler") if one["Action"] == "ecs:StartTask"]
        self.assertEqual(statement["Condition"]["StringEquals"], {"aws:RequestTag/force12.cluster": "demo"})
        self.assertIn('cluster = "demo"\n', files().text("config/scheduler.toml"))
        families = [resource.rpartition("/")[2] for resource in statement["Resource"]]
        self.assertEqual(families, [f"{CLUSTER}-{name}:*" for name in WORKLOADS])
        # Its workloads have no roles, so it has none to pass on, and no way to give a task another one.
        self.assertNotIn("iam:PassRole", actions("scheduler"))

    def test_roles_are_passed_on_to_nobody_else(self):
        for statement in statements("operator"):
            if "iam:PassRole" in listed(statement["Action"]):
                self.assertIn("iam:PassedToService", statement["Condition"]["StringEquals"])
                self.assertTrue(all("*" not in resource for resource in listed(statement["Resource"])))

    def test_none_is_longer_than_iam_takes(self):
        # White space does not count: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
        for name in POLICIES:
            size = len(json.dumps(files().json(f"iam/{name}.json"), separators=(",", ":")))
            # Of a managed policy, which the operator's will be; what stands in a role may have 10,240.
            self.assertLessEqual(size, 6144 if name == "operator" else 10240)

    def test_only_the_rule_may_send_to_the_queue(self):
        (statement,) = files().json("events/queue-policy.json")["Statement"]
        self.assertEqual(statement["Principal"], {"Service": "events.amazonaws.com"})
        wanted = {"ArnEquals": {"aws:SourceArn": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{CLUSTER}-events"}}
        self.assertEqual(statement["Condition"], wanted)


class DriverCalls(unittest.TestCase):
    """The scheduler's rights are those for the calls that driver-ecs makes."""

    SOURCES = Path(__file__).resolve().parents[4] / "crates" / "driver-ecs" / "src"
    # What a call takes beside the right of its own name.
    MORE = {"ecs:StartTask": {"ecs:TagResource"}}
    # IAM has one right for both ways.
    NAMES = {"sqs:DeleteMessageBatch": "sqs:DeleteMessage"}

    def test_it_may_do_what_it_does_and_nothing_else(self):
        text = "\n".join(path.read_text() for path in self.SOURCES.rglob("*.rs"))
        session = botocore.session.get_session()
        needed = set()
        for service in ("ecs", "sqs"):
            for operation in session.get_service_model(service).operation_names:
                # As the SDK for Rust calls it: client.start_task()
                if f".{botocore.xform_name(operation)}()" in text:
                    action = self.NAMES.get(f"{service}:{operation}", f"{service}:{operation}")
                    needed |= {action} | self.MORE.get(action, set())
        self.assertEqual(actions("scheduler"), needed)
