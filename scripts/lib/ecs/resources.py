"""A class for each kind of thing in the account. Each can `read` its state, `create`, `update` and `delete` it.

A state is a document that `compare.diff` can show: `read` gives that of the account, or None where there is nothing, and
`wanted` the one of the files.
"""

import json
import secrets

from botocore.exceptions import ClientError

from ecs import compare
from ecs.files import Refused

# The tag by which things are known to have been made by scripts/ecs: its value is the name of the ECS cluster.
OWNER_TAG = "force12.stack"

# Task definitions per call that deletes them.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteTaskDefinitions.html
DELETED_PER_CALL_MAX = 10

# Days for which logs are kept.
LOG_DAYS = 14


def code(error):
    return error.response.get("Error", {}).get("Code", "")


class Resource:
    """What all have: the clients, the files, and the name of the ECS cluster."""

    def __init__(self, aws, files, name):
        self.aws, self.files, self.name = aws, files, name
        self.cluster = files.values["YOUR_ECS_CLUSTER"]

    def __str__(self):
        return f"{self.kind} {self.name}"

    def known(self, live):
        """Fills in what others need to know of this, from its state; `live` is None where it is to be made yet."""

    def check_owner(self, tags):
        """Refuses to touch what has this name and is somebody else's. `tags` as the service gives them."""
        if isinstance(tags, dict):
            values = tags
        else:
            values = {tag.get("Key", tag.get("key")): tag.get("Value", tag.get("value")) for tag in tags or []}
        if values.get(OWNER_TAG) != self.cluster:
            raise Refused(
                f"{self} is there, and was not made by scripts/ecs for cluster {self.cluster}: it has no tag "
                f"{OWNER_TAG}={self.cluster}. Remove it, or tag it so if it is to be taken over"
            )

    def tags(self, key="Key", value="Value"):
        return [{key: OWNER_TAG, value: self.cluster}]


class LogGroup(Resource):
    kind = "log group"

    def wanted(self):
        return {"retentionInDays": LOG_DAYS}

    def read(self):
        groups = self.aws.logs.describe_log_groups(logGroupNamePrefix=self.name)["logGroups"]
        group = next((group for group in groups if group["logGroupName"] == self.name), None)
        if not group:
            return None
        # The other ARN that it has ends with ":*", and is not taken here.
        arn = group["arn"].removesuffix(":*")
        self.check_owner(self.aws.logs.list_tags_for_resource(resourceArn=arn)["tags"])
        return {"retentionInDays": group.get("retentionInDays")}

    def create(self, wanted):
        self.aws.logs.create_log_group(logGroupName=self.name, tags={OWNER_TAG: self.cluster})
        self.update(None, wanted)

    def update(self, _live, wanted):
        self.aws.logs.put_retention_policy(logGroupName=self.name, **wanted)

    def delete(self):
        self.aws.logs.delete_log_group(logGroupName=self.name)


class Token(Resource):
    """The operator's token. Made once, at random, and never written over: whoever wants another puts it there."""

    kind = "secret"

    def wanted(self):
        return {"is": "there"}

    def read(self):
        try:
            secret = self.aws.secretsmanager.describe_secret(SecretId=self.name)
        except ClientError as error:
            if code(error) != "ResourceNotFoundException":
                raise
            return None
        if "DeletedDate" in secret:
            raise Refused(
                f"{self} is being deleted by somebody else: aws secretsmanager restore-secret --secret-id {self.name}"
            )
        self.check_owner(secret.get("Tags"))
        self.arn = secret["ARN"]
        return {"is": "there"}

    def known(self, live):
        arn = self.arn if live else f"(the ARN of {self}, once it is made)"
        self.files.values["YOUR_TOKEN_SECRET_ARN"] = arn

    def create(self, _wanted):
        self.aws.secretsmanager.create_secret(
            Name=self.name,
            Description="The operator's token: with it demand can be set, and instances drained, over HTTP",
            SecretString=secrets.token_hex(24),
            Tags=self.tags(),
        )

    def delete(self):
        # At once: a secret that waits for its end keeps its name, and this one is worth nothing afterwards.
        self.aws.secretsmanager.delete_secret(SecretId=self.name, ForceDeleteWithoutRecovery=True)


class Queue(Resource):
    """Where the cluster's state changes arrive.

    They only make the scheduler look sooner than it would by itself, so none is kept for long, and none is kept that
    could not be delivered.
    """

    kind = "queue"

    def wanted(self):
        return {**self.files.json("events/queue.json"), "Policy": self.files.json("events/queue-policy.json")}

    def read(self):
        try:
            self.url = self.aws.sqs.get_queue_url(QueueName=self.name)["QueueUrl"]
            # One that was deleted a moment ago still has its URL.
            attributes = self.aws.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        except ClientError as error:
            if code(error).rpartition(".")[2] not in ("NonExistentQueue", "QueueDoesNotExist"):
                raise
            return None
        self.check_owner(self.aws.sqs.list_queue_tags(QueueUrl=self.url).get("Tags"))
        attributes = {"Policy": "{}", **attributes}
        attributes["Policy"] = json.loads(attributes["Policy"])
        return compare.shaped(attributes, self.wanted())

    def known(self, live):
        self.files.values["YOUR_EVENTS_QUEUE_URL"] = self.url if live else f"(the URL of {self}, once it is made)"

    def create(self, wanted):
        self.aws.sqs.create_queue(
            QueueName=self.name, Attributes=self._attributes(wanted), tags={OWNER_TAG: self.cluster}
        )

    def update(self, _live, wanted):
        self.aws.sqs.set_queue_attributes(QueueUrl=self.url, Attributes=self._attributes(wanted))

    def delete(self):
        self.aws.sqs.delete_queue(QueueUrl=self.url)

    @staticmethod
    def _attributes(wanted):
        return {**wanted, "Policy": json.dumps(wanted["Policy"])}


class Rule(Resource):
    """What has the cluster's state changes sent to the queue."""

    kind = "rule"

    def __init__(self, aws, files, name, queue_arn):
        super().__init__(aws, files, name)
        self.target = {"Id": "queue", "Arn": queue_arn}

    def wanted(self):
        return {"EventPattern": self.files.json("events/pattern.json"), "State": "ENABLED", "Targets": [self.target]}

    def read(self):
        try:
            rule = self.aws.events.describe_rule(Name=self.name)
        except ClientError as error:
            if code(error) != "ResourceNotFoundException":
                raise
            return None
        self.check_owner(self.aws.events.list_tags_for_resource(ResourceARN=rule["Arn"])["Tags"])
        targets = self.aws.events.list_targets_by_rule(Rule=self.name)["Targets"]
        return {"EventPattern": json.loads(rule["EventPattern"]), "State": rule["State"], "Targets": targets}

    def create(self, wanted):
        self._put(wanted, Tags=self.tags())

    def update(self, _live, wanted):
        self._put(wanted)

    def _put(self, wanted, **more):
        pattern = json.dumps(wanted["EventPattern"])
        self.aws.events.put_rule(Name=self.name, EventPattern=pattern, State=wanted["State"], **more)
        answer = self.aws.events.put_targets(Rule=self.name, Targets=wanted["Targets"])
        for failed in answer.get("FailedEntries", []):
            raise Refused(f"{self}: its target was refused: {failed.get('ErrorMessage')}")

    def delete(self):
        targets = self.aws.events.list_targets_by_rule(Rule=self.name)["Targets"]
        if targets:
            self.aws.events.remove_targets(Rule=self.name, Ids=[target["Id"] for target in targets])
        self.aws.events.delete_rule(Name=self.name)


class Role(Resource):
    """A role with one policy, which stands in it, and at most one of AWS's own."""

    kind = "role"
    POLICY = "force12"

    def __init__(self, aws, files, name, trust, policy, managed=None):
        super().__init__(aws, files, name)
        self.trust, self.policy, self.managed = trust, policy, managed

    def wanted(self):
        return {
            "AssumeRolePolicyDocument": self.files.json(self.trust),
            "Policy": self.files.json(self.policy),
            "ManagedPolicies": [self.managed] if self.managed else [],
        }

    def read(self):
        try:
            role = self.aws.iam.get_role(RoleName=self.name)["Role"]
        except ClientError as error:
            if code(error) != "NoSuchEntity":
                raise
            return None
        self.check_owner(role.get("Tags"))
        policy = None
        if self.POLICY in self.aws.iam.list_role_policies(RoleName=self.name)["PolicyNames"]:
            answer = self.aws.iam.get_role_policy(RoleName=self.name, PolicyName=self.POLICY)
            policy = answer["PolicyDocument"]
        return {
            "AssumeRolePolicyDocument": role["AssumeRolePolicyDocument"],
            "Policy": policy,
            "ManagedPolicies": [attached["PolicyArn"] for attached in self._attached()],
        }

    def _attached(self):
        return self.aws.iam.list_attached_role_policies(RoleName=self.name)["AttachedPolicies"]

    def create(self, wanted):
        trust = json.dumps(wanted["AssumeRolePolicyDocument"])
        self.aws.iam.create_role(RoleName=self.name, AssumeRolePolicyDocument=trust, Tags=self.tags())
        self._put(wanted)

    def update(self, _live, wanted):
        trust = json.dumps(wanted["AssumeRolePolicyDocument"])
        self.aws.iam.update_assume_role_policy(RoleName=self.name, PolicyDocument=trust)
        self._put(wanted)

    def _put(self, wanted):
        policy = json.dumps(wanted["Policy"])
        self.aws.iam.put_role_policy(RoleName=self.name, PolicyName=self.POLICY, PolicyDocument=policy)
        attached = [policy["PolicyArn"] for policy in self._attached()]
        for arn in set(attached) - set(wanted["ManagedPolicies"]):
            self.aws.iam.detach_role_policy(RoleName=self.name, PolicyArn=arn)
        for arn in set(wanted["ManagedPolicies"]) - set(attached):
            self.aws.iam.attach_role_policy(RoleName=self.name, PolicyArn=arn)

    def delete(self):
        for name in self.aws.iam.list_role_policies(RoleName=self.name)["PolicyNames"]:
            self.aws.iam.delete_role_policy(RoleName=self.name, PolicyName=name)
        for policy in self._attached():
            self.aws.iam.detach_role_policy(RoleName=self.name, PolicyArn=policy["PolicyArn"])
        self.aws.iam.delete_role(RoleName=self.name)


class InstanceProfile(Resource):
    """What gives container instances the role of the same name."""

    kind = "instance profile"

    def wanted(self):
        return {"Roles": [self.name]}

    def read(self):
        try:
            profile = self.aws.iam.get_instance_profile(InstanceProfileName=self.name)["InstanceProfile"]
        except ClientError as error:
            if code(error) != "NoSuchEntity":
                raise
            return None
        self.check_owner(profile.get("Tags"))
        return {"Roles": [role["RoleName"] for role in profile["Roles"]]}

    def create(self, wanted):
        self.aws.iam.create_instance_profile(InstanceProfileName=self.name, Tags=self.tags())
        self.update({"Roles": []}, wanted)

    def update(self, live, wanted):
        for role in live["Roles"]:
            self.aws.iam.remove_role_from_instance_profile(InstanceProfileName=self.name, RoleName=role)
        for role in wanted["Roles"]:
            self.aws.iam.add_role_to_instance_profile(InstanceProfileName=self.name, RoleName=role)

    def delete(self):
        self.update(self.read(), {"Roles": []})
        self.aws.iam.delete_instance_profile(InstanceProfileName=self.name)


class TaskDefinition(Resource):
    """A family. A changed file becomes its next revision; the same file does not."""

    kind = "task definition"

    def __init__(self, aws, files, name, file):
        super().__init__(aws, files, name)
        self.file = file
        self.arn = None

    def request(self):
        return self.files.request(self.file, "ecs", "RegisterTaskDefinition")

    def wanted(self):
        request = self.request()
        if request["family"] != self.name:
            raise Refused(f"{self.files.directory / self.file}: family must be {self.name}, not {request['family']}")
        return compare.task_definition(request)

    def described(self):
        """The newest revision that can be started, as ECS describes it."""
        try:
            answer = self.aws.ecs.describe_task_definition(taskDefinition=self.name, include=["TAGS"])
        except ClientError as error:
            # Both: there is no such family, or all of its revisions have been deregistered.
            if code(error) != "ClientException":
                raise
            return None
        found = answer["taskDefinition"]
        if found.get("status", "ACTIVE") != "ACTIVE":
            return None
        self.check_owner(answer.get("tags"))
        return found

    def read(self):
        found = self.described()
        self.arn = found and found["taskDefinitionArn"]
        return found and compare.task_definition(found)

    def create(self, _wanted):
        answer = self.aws.ecs.register_task_definition(**self.request(), tags=self.tags("key", "value"))
        self.arn = answer["taskDefinition"]["taskDefinitionArn"]

    def update(self, _live, wanted):
        self.create(wanted)

    def revisions(self, status):
        pages = self.aws.ecs.get_paginator("list_task_definitions").paginate(familyPrefix=self.name, status=status)
        return [arn for page in pages for arn in page["taskDefinitionArns"]]

    def delete(self):
        self.described()
        for arn in self.revisions("ACTIVE"):
            self.aws.ecs.deregister_task_definition(taskDefinition=arn)
        inactive = self.revisions("INACTIVE")
        for at in range(0, len(inactive), DELETED_PER_CALL_MAX):
            some = inactive[at : at + DELETED_PER_CALL_MAX]
            for failure in self.aws.ecs.delete_task_definitions(taskDefinitions=some).get("failures", []):
                raise Refused(f"{self}: {failure.get('arn')} cannot be deleted: {failure.get('reason')}")


class Service(Resource):
    """An ECS service of one task."""

    kind = "service"

    def __init__(self, aws, files, name, file, task_definition):
        super().__init__(aws, files, name)
        self.file, self.task_definition = file, task_definition

    def request(self):
        request = self.files.request(self.file, "ecs", "CreateService")
        if request["serviceName"] != self.name:
            raise Refused(f"{self.files.directory / self.file}: serviceName must be {self.name}")
        return request

    def wanted(self):
        """With the revision that its task definition has now."""
        request = self.request()
        request["taskDefinition"] = self.task_definition.arn or "(the new revision)"
        return {key: value for key, value in request.items() if key != "cluster"}

    def described(self):
        answer = self.aws.ecs.describe_services(cluster=self.cluster, services=[self.name], include=["TAGS"])
        found = next((service for service in answer["services"] if service["status"] == "ACTIVE"), None)
        if found:
            self.check_owner(found.get("tags"))
        return found

    def read(self):
        found = self.described()
        return found and compare.shaped(found, self.wanted())

    def create(self, wanted):
        self.aws.ecs.create_service(cluster=self.cluster, **wanted, tags=self.tags("key", "value"))

    # What stays as it was made: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html
    FIXED = {"serviceName", "launchType", "schedulingStrategy", "deploymentController"}

    def update(self, live, wanted):
        for key in self.FIXED:
            if key in live and live[key] != wanted[key]:
                raise Refused(f"{self}: {key} cannot change from {live[key]} to {wanted[key]}; remove the service first")
        changeable = {key: value for key, value in wanted.items() if key not in self.FIXED}
        self.aws.ecs.update_service(cluster=self.cluster, service=self.name, **changeable)

    def delete(self):
        """Its tasks are stopped by ECS, which takes as long as they take."""
        self.aws.ecs.delete_service(cluster=self.cluster, service=self.name, force=True)
