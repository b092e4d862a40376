"""All of the things, in the order in which they need each other: registered, compared, removed."""

import re
import time

from ecs import compare
from ecs.files import SERVICES, TASK_DEFINITIONS, Files, Refused
from ecs.resources import (
    InstanceProfile,
    LogGroup,
    Queue,
    Role,
    Rule,
    Service,
    TaskDefinition,
    Token,
)

# From one look at tasks that are to end to the next, and for how long they are waited for. A task has its stopTimeout, at
# most two minutes, and then its agent has to say so.
LOOK_S = 2
TASKS_END_S = 180

# Tasks per call that describes them, instances per call likewise.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html
DESCRIBED_PER_CALL_MAX = 100

# The longest name of an IAM role.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
ROLE_NAME_MAX = 64

CLUSTER_ARN = re.compile(r"arn:(?P<partition>[^:]+):ecs:(?P<region>[^:]+):(?P<account>[^:]+):cluster/(?P<name>.+)")
IMAGE = re.compile(r"(?P<prefix>.+)/[^/:]+:(?P<tag>[^:/@]+)")


def images_of(container_definitions):
    """The prefix and the tag of the images that a task definition names; nothing where they are named otherwise."""
    found = IMAGE.fullmatch(container_definitions[0]["image"])
    return (found["prefix"], found["tag"]) if found else (None, None)


class Deployment:
    """What there is and what is wanted for one ECS cluster. `say` takes lines for the operator."""

    def __init__(self, aws, options, say):
        self.aws, self.options, self.say = aws, options, say
        self.files = Files(options.files)
        self.cluster = self._cluster()
        values = self.files.values
        values["YOUR_ECS_CLUSTER"] = self.cluster["clusterName"]
        arn = CLUSTER_ARN.fullmatch(self.cluster["clusterArn"])
        if not arn:
            raise Refused(f"cluster {options.cluster}: its ARN is {self.cluster['clusterArn']}, which names no account")
        values["YOUR_AWS_PARTITION"] = arn["partition"]
        values["YOUR_AWS_REGION"] = arn["region"]
        values["YOUR_AWS_ACCOUNT"] = arn["account"]
        self.resources = self._resources()

    def _cluster(self):
        answer = self.aws.ecs.describe_clusters(clusters=[self.options.cluster])
        found = next((cluster for cluster in answer["clusters"] if cluster["status"] == "ACTIVE"), None)
        if not found:
            raise Refused(
                f"there is no ECS cluster {self.options.cluster} in region {self.aws.region}. "
                f"Make it: aws ecs create-cluster --cluster-name {self.options.cluster}"
            )
        return found

    def _resources(self):
        name, values = self.cluster["clusterName"], self.files.values
        things = []
        if self.options.ecs_only:
            for placeholder, value in (
                ("YOUR_EVENTS_QUEUE_URL", self.options.events_queue_url),
                ("YOUR_TOKEN_SECRET_ARN", self.options.token_secret_arn),
            ):
                if value:
                    values[placeholder] = value
        else:
            things += self._beside_ecs(name, values)
        self.task_definitions = {
            each: TaskDefinition(self.aws, self.files, f"{name}-{each}", f"task-definitions/{each}.json")
            for each in TASK_DEFINITIONS
        }
        self.services = [
            Service(self.aws, self.files, each, f"services/{each}.json", self.task_definitions[each])
            for each in SERVICES
            if not self.options.no_services
        ]
        return [*things, *self.task_definitions.values(), *self.services]

    def _beside_ecs(self, name, values):
        role = f"{name}-{values['YOUR_AWS_REGION']}"
        if len(f"{role}-scheduler") > ROLE_NAME_MAX:
            raise Refused(f"cluster {name}: its name is too long, role {role}-scheduler would have over {ROLE_NAME_MAX}")
        queue = f"{name}-events"
        queue_arn = ":".join(
            ("arn", values["YOUR_AWS_PARTITION"], "sqs", values["YOUR_AWS_REGION"], values["YOUR_AWS_ACCOUNT"], queue)
        )
        session_manager = f"arn:{values['YOUR_AWS_PARTITION']}:iam::aws:policy/AmazonSSMManagedInstanceCore"
        tasks, instances = "iam/trust-ecs-tasks.json", "iam/trust-ec2.json"
        self.of_instances = [
            Role(self.aws, self.files, f"{role}-instance", instances, "iam/instance.json", session_manager),
            InstanceProfile(self.aws, self.files, f"{role}-instance"),
        ]
        return [
            LogGroup(self.aws, self.files, f"/{name}"),
            Token(self.aws, self.files, f"{name}/token"),
            Queue(self.aws, self.files, queue),
            Rule(self.aws, self.files, queue, queue_arn),
            Role(self.aws, self.files, f"{role}-execution", tasks, "iam/execution.json"),
            Role(self.aws, self.files, f"{role}-scheduler", tasks, "iam/scheduler.json"),
            *self.of_instances,
        ]

    def _choose_images(self, must):
        """Those that are asked for; otherwise those that are registered. Refuses where there are none, if there must be."""
        values = self.files.values
        found = self.task_definitions["scheduler"].described()
        prefix, tag = images_of(found["containerDefinitions"]) if found else (None, None)
        registry = f"{values['YOUR_AWS_ACCOUNT']}.dkr.ecr.{values['YOUR_AWS_REGION']}.amazonaws.com"
        if values["YOUR_AWS_PARTITION"] == "aws-cn":
            registry += ".cn"
        tag = self.options.tag or tag
        if must and not tag:
            raise Refused(
                "no image is registered yet, so say which: --tag TAG. Instances that prefer what they have (prefer-cached) "
                "never pull a tag again, so let every build have a tag of its own, such as: git rev-parse --short HEAD"
            )
        values["YOUR_IMAGE_PREFIX"] = self.options.images or prefix or f"{registry}/force12"
        values["YOUR_IMAGE_TAG"] = tag or "none-yet"

    def compared(self, must=True):
        """Each thing with its state and the one that is wanted, in order; made or changed by the caller in between."""
        self._choose_images(must)
        # Whatever is wrong with the files is said before anything is touched.
        for thing in self.resources:
            thing.known(None)
            thing.wanted()
        for thing in self.resources:
            live = thing.read()
            thing.known(live)
            wanted = thing.wanted()
            yield thing, live, compare.told(live, wanted) if live and isinstance(thing, Service) else wanted

    def register(self):
        """Makes what is missing and changes what differs. Returns how many things that were."""
        counts = {"created": 0, "changed": 0, "unchanged": 0}
        for thing, live, wanted in self.compared():
            lines = compare.diff(live, wanted) if live else []
            if live and not lines:
                counts["unchanged"] += 1
                self.say(f"unchanged  {thing}")
                continue
            counts["changed" if live else "created"] += 1
            self.say(f"{'change' if live else 'create':10} {thing}")
            for line in lines:
                self.say(f"             {line}")
            if isinstance(thing, TaskDefinition) and self.options.dry_run:
                thing.arn = None
            if not self.options.dry_run:
                if live:
                    thing.update(live, wanted)
                else:
                    thing.create(wanted)
                    thing.known(thing.read())
        would = "would be " if self.options.dry_run else ""
        self.say(", ".join(f"{count} {would if what != 'unchanged' else ''}{what}" for what, count in counts.items()))
        return counts["created"] + counts["changed"]

    def status(self):
        """Says how things are. True if all is as the files say, and runs."""
        well = True
        for thing, live, wanted in self.compared(must=False):
            differs = bool(live and compare.diff(live, wanted))
            word = "differs" if differs else "as wanted" if live else "missing"
            well = well and word == "as wanted"
            self.say(f"{word:10} {thing}")
        for service in self.services:
            well = self._service_status(service) and well
        self._pool_status()
        for name, thing in self.task_definitions.items():
            if name not in SERVICES:
                self.say(f"{len(self._tasks(thing.name)):10} tasks of {thing.name}")
        if not well:
            self.say("not all is as wanted: scripts/ecs register --dry-run shows the differences; docs/ecs.md, how to read failures")
        return well

    def _service_status(self, service):
        found = service.described()
        if not found:
            return False
        newest = next(iter(found.get("deployments", [])), {})
        rollout = newest.get("rolloutState", "")
        self.say(
            f"{found['runningCount']:>8}/{found['desiredCount']} {service}: running/wanted"
            + (f", rollout {rollout}" if rollout else "")
        )
        steady = found["runningCount"] == found["desiredCount"] and rollout in ("", "COMPLETED")
        if not steady:
            for event in found.get("events", [])[:3]:
                self.say(f"{'':10} {event['message']}")
        return steady

    def _pool_status(self):
        instances = self._instances()
        away = [one for one in instances if not one.get("agentConnected")]
        self.say(f"{len(instances):10} container instances, {len(away)} of them with their agent disconnected")
        control = [
            one
            for one in instances
            if any((a["name"], a.get("value")) == ("force12.role", "control") for a in one.get("attributes", []))
        ]
        if self.services and len(control) != 1:
            self.say(
                f"{'':10} {len(control)} of them have the attribute force12.role=control, and one should: it is where the three "
                "services run. Set it: aws ecs put-attributes (docs/ecs.md)"
            )

    def _instances(self):
        pages = self.aws.ecs.get_paginator("list_container_instances").paginate(cluster=self.cluster["clusterArn"])
        arns = [arn for page in pages for arn in page["containerInstanceArns"]]
        instances = []
        for at in range(0, len(arns), DESCRIBED_PER_CALL_MAX):
            some = arns[at : at + DESCRIBED_PER_CALL_MAX]
            answer = self.aws.ecs.describe_container_instances(
                cluster=self.cluster["clusterArn"], containerInstances=some
            )
            instances += answer["containerInstances"]
        return instances

    def _tasks(self, family, status="RUNNING"):
        """Those of a family that are to run, or, with another status, that are to stop or have stopped lately."""
        pages = self.aws.ecs.get_paginator("list_tasks").paginate(
            cluster=self.cluster["clusterArn"], family=family, desiredStatus=status
        )
        return [arn for page in pages for arn in page["taskArns"]]

    def remove(self):
        """Takes all of it away, what was started included. True if nothing is left."""
        if self.options.dry_run:
            self._say_what_would_go()
            return True
        # What is somebody else's is said before anything is touched.
        for thing in self.resources:
            thing.described() if isinstance(thing, Service) else thing.read()
        for service in self.services:
            if service.described():
                self.say(f"remove     {service}")
                service.delete()
        # First the scheduler, or it would start again what is stopped.
        if self.services:
            self._await(self._services_tasks)
        self._stop_all_tasks()
        kept = self._kept()
        for thing in reversed(self.resources):
            if isinstance(thing, Service) or thing in kept:
                continue
            if isinstance(thing, TaskDefinition):
                there = thing.revisions("ACTIVE") or thing.revisions("INACTIVE")
            else:
                there = thing.read()
            if there:
                self.say(f"remove     {thing}")
                thing.delete()
        for thing in kept:
            self.say(f"kept       {thing}: instances of the cluster use it. When they are gone, run this again")
        return not kept

    def _kept(self):
        """An instance that has lost its role can neither report nor leave."""
        return self.of_instances if not self.options.ecs_only and self._instances() else []

    def _say_what_would_go(self):
        kept = self._kept()
        for thing in reversed(self.resources):
            if isinstance(thing, TaskDefinition):
                there = thing.revisions("ACTIVE") + thing.revisions("INACTIVE")
                tasks = len(self._tasks(thing.name))
                what = f": {len(there)} revisions, {tasks} tasks"
            else:
                there, what = (thing.described() if isinstance(thing, Service) else thing.read()), ""
            if there:
                self.say(f"{'would keep' if thing in kept else 'would remove'} {thing}{what}")

    def _services_tasks(self):
        """What ECS has not ended yet of the services that were deleted."""
        families = [self.task_definitions[name].name for name in SERVICES]
        return [arn for family in families for status in ("RUNNING", "STOPPED") for arn in self._tasks(family, status)]

    def _stop_all_tasks(self):
        stopped = set()

        def tasks():
            found = [arn for thing in self.task_definitions.values() for arn in self._tasks(thing.name)]
            for arn in found:
                if arn not in stopped:
                    self.say(f"stop       task {arn.rpartition('/')[2]}")
                    self.aws.ecs.stop_task(cluster=self.cluster["clusterArn"], task=arn, reason="scripts/ecs remove")
                    stopped.add(arn)
            return [*found, *stopped.difference(found)]

        self._await(tasks)

    def _await(self, tasks):
        """Waits until none of the `tasks` that it names goes on."""
        until = time.monotonic() + TASKS_END_S
        while left := self._not_ended(tasks()):
            if time.monotonic() > until:
                raise Refused(
                    f"{len(left)} tasks have not ended within {TASKS_END_S} s, such as {left[0]}. Is the agent of their "
                    "instance connected? scripts/ecs status tells. Run this again"
                )
            time.sleep(LOOK_S)

    def _not_ended(self, arns):
        left = []
        for at in range(0, len(arns), DESCRIBED_PER_CALL_MAX):
            some = arns[at : at + DESCRIBED_PER_CALL_MAX]
            answer = self.aws.ecs.describe_tasks(cluster=self.cluster["clusterArn"], tasks=some)
            left += [task["taskArn"] for task in answer["tasks"] if task["lastStatus"] != "STOPPED"]
        return left
