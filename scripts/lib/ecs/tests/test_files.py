"""cloud-config/ecs itself, and what is refused of files like it."""

import json
import tomllib
import unittest

from ecs import files as reading
from ecs.files import SERVICES, TASK_DEFINITIONS, WORKLOADS, Refused
from ecs.tests.support import CLOUD_CONFIG, CLUSTER, VALUES, Directory, files

# CPU units are 1,024 to a CPU, of which Force12 counts thousandths.
UNITS_PER_CPU = 1024


def task_definition(name):
    return files().request(f"task-definitions/{name}.json", "ecs", "RegisterTaskDefinition")


def scheduler_config():
    return tomllib.loads(files().filled("config/scheduler.toml"))


class TaskDefinitions(unittest.TestCase):
    def test_every_one_is_what_ecs_takes(self):
        names = {path.stem for path in (CLOUD_CONFIG / "task-definitions").iterdir()}
        self.assertEqual(names, set(TASK_DEFINITIONS))
        for name in names:
            with self.subTest(name):
                self.assertEqual(task_definition(name)["family"], f"{CLUSTER}-{name}")

    def test_no_container_may_more_than_it_needs(self):
        for name in TASK_DEFINITIONS:
            with self.subTest(name):
                definition = task_definition(name)
                self.assertEqual(definition["networkMode"], "host")
                self.assertNotIn("volumes", definition)
                (container,) = definition["containerDefinitions"]
                self.assertEqual(container["user"], "65532:65532")
                self.assertIs(container["readonlyRootFilesystem"], True)
                self.assertIs(container["privileged"], False)
                # Only instances whose agent registers SELinux or AppArmor would take it, and a stock one does not.
                self.assertNotIn("dockerSecurityOptions", container)
                self.assertEqual(container["linuxParameters"], {"capabilities": {"drop": ["ALL"]}})
                self.assertTrue(container["memory"] and container["cpu"] and container["stopTimeout"])

    def test_services_know_the_token_by_its_arn_and_workloads_do_not(self):
        for name in SERVICES:
            (container,) = task_definition(name)["containerDefinitions"]
            wanted = [{"name": "FORCE12_TOKEN", "valueFrom": VALUES["YOUR_TOKEN_SECRET_ARN"]}]
            self.assertEqual(container["secrets"], wanted)
            self.assertNotIn("FORCE12_TOKEN", [variable["name"] for variable in container["environment"]])
            self.assertEqual(container["healthCheck"]["command"][2], "healthcheck")
        for name in WORKLOADS:
            definition = task_definition(name)
            # A role here would be one that the scheduler has to be allowed to pass on.
            self.assertFalse({"taskRoleArn", "executionRoleArn"} & definition.keys())
            self.assertNotIn("secrets", definition["containerDefinitions"][0])
            # awslogs makes a log stream before a container starts.
            driver = definition["containerDefinitions"][0]["logConfiguration"]["logDriver"]
            self.assertEqual(driver, "json-file")
        self.assertIn("taskRoleArn", task_definition("scheduler"))
        self.assertNotIn("taskRoleArn", task_definition("status-api"))

    def test_only_status_api_is_reached_from_elsewhere(self):
        for name in SERVICES:
            (container,) = task_definition(name)["containerDefinitions"]
            environment = {variable["name"]: variable["value"] for variable in container["environment"]}
            self.assertEqual(environment["FORCE12_CONFIG"], "env:FORCE12_CONFIG_TOML")
            address, _, port = tomllib.loads(environment["FORCE12_CONFIG_TOML"])["listen"].rpartition(":")
            self.assertEqual(address, "0.0.0.0" if name == "status-api" else "127.0.0.1")
            wanted = [{"containerPort": int(port), "hostPort": int(port), "protocol": "tcp"}]
            self.assertEqual(container["portMappings"], wanted)


class Services(unittest.TestCase):
    def test_there_is_never_a_second_task_and_all_are_on_one_instance(self):
        for name in SERVICES:
            with self.subTest(name):
                service = files().request(f"services/{name}.json", "ecs", "CreateService")
                self.assertEqual(service["taskDefinition"], f"{CLUSTER}-{name}")
                self.assertEqual(service["desiredCount"], 1)
                deployment = service["deploymentConfiguration"]
                self.assertEqual((deployment["minimumHealthyPercent"], deployment["maximumPercent"]), (0, 100))
                wanted = [{"type": "memberOf", "expression": "attribute:force12.role == control"}]
                self.assertEqual(service["placementConstraints"], wanted)


class SchedulerConfig(unittest.TestCase):
    def test_it_asks_for_what_the_task_definitions_reserve(self):
        config = scheduler_config()
        self.assertEqual({service["name"] for service in config["service"]}, set(WORKLOADS))
        for service in config["service"]:
            definition = task_definition(service["name"])
            self.assertEqual(service["task_definition"], definition["family"])
            (container,) = definition["containerDefinitions"]
            self.assertEqual(service["request"]["memory_mib"], container["memory"])
            self.assertEqual(service["request"]["cpu_millis"], container["cpu"] * 1000 / UNITS_PER_CPU)

    def test_it_keeps_room_for_the_control_plane(self):
        containers = [task_definition(name)["containerDefinitions"][0] for name in SERVICES]
        reserve = scheduler_config()["ecs"]["reserve"]
        self.assertEqual(reserve["memory_mib"], sum(container["memory"] for container in containers))
        units = sum(container["cpu"] for container in containers)
        self.assertEqual(reserve["cpu_millis"], units * 1000 / UNITS_PER_CPU)


class EveryFile(unittest.TestCase):
    def test_placeholders_are_known_and_all_are_filled_in(self):
        names = [str(path.relative_to(CLOUD_CONFIG)) for path in CLOUD_CONFIG.rglob("*.json")]
        self.assertGreaterEqual(len(names), 15)
        for name in names:
            with self.subTest(name):
                text = json.dumps(files().json(name))
                # What is in the comments of a configuration stays as it is.
                left = [line for line in text.split("\\n") if "YOUR_" in line and not line.startswith("#")]
                self.assertEqual(left, [])

    def test_the_queue_is_one_that_sqs_takes(self):
        attributes = files().json("events/queue.json")
        request = {"QueueName": "a", "Attributes": attributes}
        self.assertEqual(reading.mistakes_of(request, "sqs", "CreateQueue"), [])
        self.assertTrue(all(60 <= int(attributes[key]) for key in ["MessageRetentionPeriod"]))


class Refusals(Directory):
    NAME = "task-definitions/priority1.json"

    def refused(self, name=NAME):
        with self.assertRaises(Refused) as raised:
            files(self.directory).request(name, "ecs", "RegisterTaskDefinition")
        message = str(raised.exception)
        self.assertIn(str(self.directory / name), message)
        return message

    def test_what_is_no_json(self):
        self.edit(self.NAME, '"cpu": 128,', '"cpu": 128')
        self.assertIn("not JSON: Expecting ',' delimiter: line 11", self.refused())

    def test_a_key_that_stands_there_twice(self):
        self.edit(self.NAME, '"cpu": 128,', '"cpu": 128, "cpu": 64,')
        self.assertIn("key 'cpu' stands there twice", self.refused())

    def test_a_key_that_ecs_does_not_know(self):
        self.edit(self.NAME, '"readonlyRootFilesystem"', '"readOnlyRootFilesystem"')
        self.assertIn('Unknown parameter in containerDefinitions[0]: "readOnlyRootFilesystem"', self.refused())

    def test_a_value_of_the_wrong_kind(self):
        self.edit(self.NAME, '"memory": 64', '"memory": "64"')
        self.assertIn("Invalid type for parameter containerDefinitions[0].memory", self.refused())

    def test_a_word_that_ecs_does_not_know(self):
        self.edit(self.NAME, '"networkMode": "host"', '"networkMode": "hosted"')
        self.assertIn("networkMode: 'hosted' is none of bridge, host", self.refused())

    def test_a_placeholder_that_nothing_is_known_for(self):
        self.edit(self.NAME, "YOUR_IMAGE_TAG", "YOUR_IMAGE_TAGS")
        self.assertIn("nothing is known to fill in for YOUR_IMAGE_TAGS", self.refused())

    def test_a_configuration_too_large_for_a_task_definition(self):
        path = self.directory / "config/scheduler.toml"
        path.write_text(path.read_text() + "# a remark\n" * 6000)
        self.assertIn("ECS takes at most 65536", self.refused("task-definitions/scheduler.json"))

    def test_a_file_that_is_not_there(self):
        (self.directory / self.NAME).unlink()
        self.assertIn("cannot be read", self.refused())
