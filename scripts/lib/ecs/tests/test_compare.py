"""What counts as the same, and how a difference is shown."""

import unittest

from ecs import compare

WRITTEN = {
    "family": "a",
    "networkMode": "host",
    "containerDefinitions": [
        {
            "name": "a",
            "image": "example/a:1",
            "memory": 64,
            "privileged": False,
            "portMappings": [{"containerPort": 80, "hostPort": 80}],
            "environment": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}],
            "stopTimeout": 0,
        }
    ],
}

# The same, as ECS describes it.
DESCRIBED = {
    "taskDefinitionArn": "arn:aws:ecs:eu-west-1:123456789012:task-definition/a:7",
    "family": "a",
    "revision": 7,
    "status": "ACTIVE",
    "networkMode": "host",
    "volumes": [],
    "placementConstraints": [],
    "requiresAttributes": [{"name": "com.amazonaws.ecs.capability.docker-remote-api.1.17"}],
    "compatibilities": ["EC2"],
    "registeredAt": 0,
    "registeredBy": "arn:aws:iam::123456789012:user/a",
    "containerDefinitions": [
        {
            "name": "a",
            "image": "example/a:1",
            "cpu": 0,
            "memory": 64,
            "portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}],
            "essential": True,
            "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "mountPoints": [],
            "volumesFrom": [],
            "systemControls": [],
            "stopTimeout": 0,
        }
    ],
}


def changed(**change):
    return {**DESCRIBED, "containerDefinitions": [{**DESCRIBED["containerDefinitions"][0], **change}]}


class TaskDefinitions(unittest.TestCase):
    def test_what_ecs_fills_in_is_no_difference(self):
        self.assertEqual(compare.task_definition(WRITTEN), compare.task_definition(DESCRIBED))

    def test_everything_else_is(self):
        for change in (
            {"image": "example/a:2"},
            {"memory": 65},
            {"cpu": 1},
            {"essential": False},
            {"privileged": True},
            {"readonlyRootFilesystem": True},
            {"stopTimeout": 2},
            {"environment": [{"name": "A", "value": "1"}]},
            {"portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "udp"}]},
            {"command": ["a"]},
        ):
            with self.subTest(change):
                live = compare.task_definition(changed(**change))
                self.assertNotEqual(compare.task_definition(WRITTEN), live)

    def test_so_is_everything_that_is_said_of_the_task(self):
        for change in (
            {"networkMode": "bridge"},
            {"family": "b"},
            {"taskRoleArn": "arn:aws:iam::123456789012:role/a"},
            {"executionRoleArn": "arn:aws:iam::123456789012:role/a"},
            {"cpu": "256"},
            {"volumes": [{"name": "a"}]},
            {"placementConstraints": [{"type": "memberOf", "expression": "a == b"}]},
            {"requiresCompatibilities": ["EC2"]},
        ):
            with self.subTest(change):
                live = compare.task_definition({**DESCRIBED, **change})
                self.assertNotEqual(compare.task_definition(WRITTEN), live)

    def test_a_stop_timeout_of_nothing_is_not_the_default(self):
        without = changed()
        del without["containerDefinitions"][0]["stopTimeout"]
        self.assertNotEqual(compare.task_definition(WRITTEN), compare.task_definition(without))


class Services(unittest.TestCase):
    def test_only_what_both_tell_is_compared(self):
        live = {"status": "ACTIVE", "desiredCount": 2, "deploymentConfiguration": {"maximumPercent": 200, "strategy": "ROLLING"}}
        wanted = {"desiredCount": 1, "deploymentConfiguration": {"maximumPercent": 100}, "placementConstraints": [1]}
        self.assertEqual(
            compare.shaped(live, wanted), {"desiredCount": 2, "deploymentConfiguration": {"maximumPercent": 200}}
        )
        self.assertEqual(
            compare.told(live, wanted), {"desiredCount": 1, "deploymentConfiguration": {"maximumPercent": 100}}
        )


class Differences(unittest.TestCase):
    def test_a_text_of_several_lines_is_compared_line_by_line(self):
        lines = compare.diff({"config": "a = 1\nb = 2\n"}, {"config": "a = 1\nb = 3\n"})
        self.assertIn('-    "b = 2",', lines)
        self.assertIn('+    "b = 3",', lines)
        self.assertEqual(compare.diff({"a": 1}, {"a": 1}), [])
