"""scripts/ecs on an account that moto plays."""

import json
import os
import unittest
from unittest import mock

import boto3
import botocore.session
from moto.core.authorization import enable_iam_authentication

from ecs import __main__ as command
from ecs import deploy, resources
from ecs.files import Refused
from ecs.tests.support import ACCOUNT, CLUSTER, REGION, Account
from ecs.tests.test_policies import actions

TAG = ("--tag", "1a2b3c4")
# Made by `register`: eight beside ECS, five task definitions, three services.
THINGS = 16


class Register(Account):
    def test_all_is_made_once_and_not_again(self):
        out = self.registered(*TAG)
        self.assertIn(f"\n{THINGS} created, 0 changed, 0 unchanged\n", out)
        self.assertEqual(len(out.splitlines()), THINGS + 1)
        again = self.registered()
        self.assertIn(f"\n0 created, 0 changed, {THINGS} unchanged\n", "\n" + again)
        self.assertEqual(len(self.ecs.list_task_definitions()["taskDefinitionArns"]), 5)
        code, _, _ = self.run_ecs("status")
        self.assertEqual(code, 1, "nothing runs: moto has no instances")

    def test_what_is_registered_fits_together(self):
        self.registered(*TAG)
        definition = self.ecs.describe_task_definition(taskDefinition=f"{CLUSTER}-scheduler")["taskDefinition"]
        (container,) = definition["containerDefinitions"]
        secret = self.client("secretsmanager").describe_secret(SecretId=f"{CLUSTER}/token")
        self.assertEqual(container["secrets"][0]["valueFrom"], secret["ARN"])
        registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
        self.assertEqual(container["image"], f"{registry}/force12/scheduler:1a2b3c4")
        role = self.client("iam").get_role(RoleName=f"{CLUSTER}-{REGION}-scheduler")["Role"]
        self.assertEqual(definition["taskRoleArn"], role["Arn"])
        queue = self.client("sqs").get_queue_url(QueueName=f"{CLUSTER}-events")["QueueUrl"]
        (toml,) = [one["value"] for one in container["environment"] if one["name"] == "FORCE12_CONFIG_TOML"]
        self.assertIn(f'events_queue_url = "{queue}"', toml)
        (target,) = self.client("events").list_targets_by_rule(Rule=f"{CLUSTER}-events")["Targets"]
        attributes = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
        self.assertEqual(target["Arn"], attributes["QueueArn"])
        (service,) = self.ecs.describe_services(cluster=CLUSTER, services=["scheduler"])["services"]
        self.assertEqual(service["taskDefinition"], definition["taskDefinitionArn"])

    def test_a_state_change_of_the_cluster_arrives_in_the_queue_and_others_do_not(self):
        self.registered(*TAG)
        for cluster in (CLUSTER, "another"):
            arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{cluster}"
            entry = {
                "Source": "aws.ecs",
                "DetailType": "ECS Task State Change",
                "Detail": json.dumps({"clusterArn": arn, "version": 3}),
            }
            self.client("events").put_events(Entries=[entry])
        sqs = self.client("sqs")
        queue = sqs.get_queue_url(QueueName=f"{CLUSTER}-events")["QueueUrl"]
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=0)["Messages"]
        clusters = [json.loads(message["Body"])["detail"]["clusterArn"] for message in messages]
        self.assertEqual(clusters, [f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"])

    def test_a_changed_file_is_one_new_revision_and_its_service_follows(self):
        self.registered(*TAG)
        self.edit("config/scheduler.toml", "slots_per_instance = 3", "slots_per_instance = 4")
        for dry in ("--dry-run",), ():
            out = self.registered(*dry)
            self.assertIn(f"change     task definition {CLUSTER}-scheduler\n", out)
            self.assertIn('             -            "slots_per_instance = 3",\n', out)
            self.assertIn('             +            "slots_per_instance = 4",\n', out)
            self.assertIn("change     service scheduler\n", out)
            would = "would be " if dry else ""
            self.assertIn(f"0 {would}created, 2 {would}changed, {THINGS - 2} unchanged\n", out)
        revisions = self.ecs.list_task_definitions(familyPrefix=f"{CLUSTER}-scheduler")["taskDefinitionArns"]
        self.assertEqual(len(revisions), 2)
        (service,) = self.ecs.describe_services(cluster=CLUSTER, services=["scheduler"])["services"]
        self.assertTrue(service["taskDefinition"].endswith("-scheduler:2"))

    def test_another_tag_is_a_new_revision_of_all_and_stays(self):
        self.registered(*TAG)
        self.assertIn("8 changed", self.registered("--tag", "5d6e7f8"))
        self.assertIn(f"0 created, 0 changed, {THINGS} unchanged", self.registered())
        found = self.ecs.describe_task_definition(taskDefinition=f"{CLUSTER}-priority1")["taskDefinition"]
        self.assertTrue(found["containerDefinitions"][0]["image"].endswith("/force12/workload:5d6e7f8"))

    def test_what_was_changed_by_hand_is_put_right(self):
        self.registered(*TAG)
        iam, sqs, events = self.client("iam"), self.client("sqs"), self.client("events")
        role = f"{CLUSTER}-{REGION}-instance"
        everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.put_role_policy(RoleName=role, PolicyName="force12", PolicyDocument=json.dumps(everything))
        queue = sqs.get_queue_url(QueueName=f"{CLUSTER}-events")["QueueUrl"]
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"MessageRetentionPeriod": "1209600"})
        events.disable_rule(Name=f"{CLUSTER}-events")
        self.client("logs").delete_retention_policy(logGroupName=f"/{CLUSTER}")
        self.ecs.update_service(cluster=CLUSTER, service="status-api", desiredCount=3)
        out = self.registered()
        self.assertIn(f"0 created, 5 changed, {THINGS - 5} unchanged", out)
        self.assertIn('-  "desiredCount": 3', out)
        self.assertIn(f"0 created, 0 changed, {THINGS} unchanged", self.registered())

    def test_a_dry_run_does_nothing(self):
        out = self.registered(*TAG, "--dry-run")
        self.assertIn(f"{THINGS} would be created", out)
        self.assertEqual(self.ecs.list_task_definitions()["taskDefinitionArns"], [])
        self.assertEqual(self.ecs.list_services(cluster=CLUSTER)["serviceArns"], [])
        self.assertEqual(self.client("iam").list_roles()["Roles"], [])
        self.assertEqual(self.client("sqs").list_queues().get("QueueUrls", []), [])
        self.assertEqual(self.client("secretsmanager").list_secrets()["SecretList"], [])
        self.assertEqual(self.client("events").list_rules()["Rules"], [])
        self.assertEqual(self.client("logs").describe_log_groups()["logGroups"], [])

    def test_the_token_is_never_written_over(self):
        self.registered(*TAG)
        client = self.client("secretsmanager")
        token = client.get_secret_value(SecretId=f"{CLUSTER}/token")["SecretString"]
        self.assertRegex(token, "^[0-9a-f]{48}$")
        client.put_secret_value(SecretId=f"{CLUSTER}/token", SecretString="of-my-own")
        self.assertIn(f"0 created, 0 changed, {THINGS} unchanged", self.registered())
        self.assertEqual(client.get_secret_value(SecretId=f"{CLUSTER}/token")["SecretString"], "of-my-own")

    def test_an_endpoint_with_nothing_but_ecs(self):
        where = ("--ecs-only", "--images", "force12", "--tag", "latest")
        beside = ("--events-queue-url", "http://127.0.0.1:9/queue", "--token-secret-arn", "arn:aws:secretsmanager:a:1:secret:b")
        self.assertIn("8 created", self.registered(*where, *beside))
        self.assertEqual(self.client("iam").list_roles()["Roles"], [])
        found = self.ecs.describe_task_definition(taskDefinition=f"{CLUSTER}-priority1")["taskDefinition"]
        self.assertEqual(found["containerDefinitions"][0]["image"], "force12/workload:latest")
        code, _, err = self.run_ecs("register", *where)
        self.assertEqual(code, 1)
        self.assertIn("YOUR_TOKEN_SECRET_ARN; give --token-secret-arn", err)
        code, out, err = self.run_ecs("remove", *where)
        self.assertEqual((code, err), (0, ""), out)
        self.assertEqual(self.ecs.list_task_definitions()["taskDefinitionArns"], [])


    def test_without_services(self):
        self.assertIn("\n13 created, ", self.registered(*TAG, "--no-services"))
        self.assertEqual(self.ecs.list_services(cluster=CLUSTER)["serviceArns"], [])
        code, out, _ = self.run_ecs("status", "--no-services")
        self.assertEqual(code, 0, out)
        self.assertEqual(self.run_ecs("remove", "--no-services")[0], 0)


class Status(Account):
    def test_what_differs_and_what_is_missing(self):
        code, out, err = self.run_ecs("status")
        self.assertEqual((code, err), (1, ""))
        self.assertEqual(out.count("missing"), THINGS)
        self.registered(*TAG)
        self.edit("services/scheduler.json", '"desiredCount": 1', '"desiredCount": 0')
        code, out, _ = self.run_ecs("status")
        self.assertEqual(code, 1)
        self.assertIn("differs    service scheduler\n", out)
        self.assertEqual(out.count("as wanted"), THINGS)
        self.assertIn("0/1 service scheduler: running/wanted", out)
        self.assertIn("0 of them have the attribute force12.role=control, and one should", out)


class Remove(Account):
    def services(self):
        """moto lists those that are gone too."""
        found = self.ecs.describe_services(cluster=CLUSTER, services=["demand-rng", "scheduler", "status-api"])
        return [service["serviceName"] for service in found["services"] if service["status"] != "INACTIVE"]

    def leftovers(self):
        statuses = ("ACTIVE", "INACTIVE", "DELETE_IN_PROGRESS")
        return {
            "task definitions": [
                arn for status in statuses for arn in self.ecs.list_task_definitions(status=status)["taskDefinitionArns"]
            ],
            "services": self.services(),
            "tasks": self.ecs.list_tasks(cluster=CLUSTER, desiredStatus="RUNNING")["taskArns"],
            "roles": self.client("iam").list_roles()["Roles"],
            "instance profiles": self.client("iam").list_instance_profiles()["InstanceProfiles"],
            "queues": self.client("sqs").list_queues().get("QueueUrls", []),
            "rules": self.client("events").list_rules()["Rules"],
            "secrets": self.client("secretsmanager").list_secrets(IncludePlannedDeletion=True)["SecretList"],
            "log groups": self.client("logs").describe_log_groups()["logGroups"],
        }

    def instance(self):
        """A container instance of the cluster, as moto registers one."""
        ec2 = boto3.resource("ec2", region_name=REGION)
        image = self.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        (machine,) = ec2.create_instances(ImageId=image, MinCount=1, MaxCount=1)
        document = json.dumps({"instanceId": machine.id, "region": REGION, "accountId": ACCOUNT})
        answer = self.ecs.register_container_instance(cluster=CLUSTER, instanceIdentityDocument=document)
        return answer["containerInstance"]["containerInstanceArn"]

    def test_nothing_is_left_and_it_can_be_registered_again(self):
        self.registered(*TAG)
        self.registered("--tag", "5d6e7f8")
        instance = self.instance()
        for family in ("priority1", "priority2"):
            self.ecs.start_task(cluster=CLUSTER, taskDefinition=f"{CLUSTER}-{family}", containerInstances=[instance])
        code, out, err = self.run_ecs("remove", "--dry-run")
        self.assertEqual((code, err), (0, ""))
        self.assertIn(f"would remove task definition {CLUSTER}-priority1: 2 revisions, 1 tasks\n", out)
        self.assertIn(f"would keep role {CLUSTER}-{REGION}-instance\n", out)
        self.assertEqual(len(self.leftovers()["services"]), 3)

        code, out, err = self.run_ecs("remove")
        self.assertEqual((code, err), (1, ""), "the instance is still there, and its role with it")
        self.assertEqual(out.count("stop       task "), 2)
        self.assertIn(f"kept       role {CLUSTER}-{REGION}-instance", out)
        left = self.leftovers()
        self.assertEqual((len(left.pop("roles")), len(left.pop("instance profiles"))), (1, 1))
        self.assertFalse(any(left.values()), left)

        self.ecs.deregister_container_instance(cluster=CLUSTER, containerInstance=instance, force=True)
        self.assertEqual(self.run_ecs("remove")[0], 0)
        self.assertFalse(any(self.leftovers().values()), self.leftovers())
        self.assertEqual(self.run_ecs("remove"), (0, "", ""))
        self.assertIn(f"{THINGS} created", self.registered(*TAG))

    def test_tasks_of_others_go_on(self):
        self.registered(*TAG)
        instance = self.instance()
        container = {"name": "a", "image": "a", "memory": 4}
        self.ecs.register_task_definition(family="of-others", containerDefinitions=[container])
        self.ecs.start_task(cluster=CLUSTER, taskDefinition="of-others", containerInstances=[instance])
        self.run_ecs("remove")
        self.assertEqual(len(self.ecs.list_tasks(cluster=CLUSTER)["taskArns"]), 1)
        self.assertEqual(len(self.ecs.list_task_definitions(familyPrefix="of-others")["taskDefinitionArns"]), 1)

    def test_nothing_is_stopped_while_the_scheduler_could_start_it_again(self):
        self.registered(*TAG)
        instance = self.instance()
        start = {"cluster": CLUSTER, "containerInstances": [instance]}
        (workload,) = self.ecs.start_task(taskDefinition=f"{CLUSTER}-priority2", **start)["tasks"]
        (scheduler,) = self.ecs.start_task(taskDefinition=f"{CLUSTER}-scheduler", **start)["tasks"]
        # ECS wants it to end, and it takes its time.
        self.ecs.stop_task(cluster=CLUSTER, task=scheduler["taskArn"])
        looks = []
        whole = deploy.Deployment._not_ended

        def not_ended(deployment, arns):
            looks.append(set(arns))
            return [scheduler["taskArn"]] if len(looks) < 3 else whole(deployment, arns)

        with mock.patch.object(deploy.Deployment, "_not_ended", not_ended):
            self.run_ecs("remove")
        self.assertEqual(looks[:3], [{scheduler["taskArn"]}] * 3)
        self.assertIn(workload["taskArn"], looks[3])

    def test_a_task_that_does_not_end_is_told(self):
        self.registered(*TAG)
        with (
            mock.patch.object(deploy, "TASKS_END_S", 0),
            mock.patch.object(deploy.Deployment, "_not_ended", lambda *_: ["arn:aws:ecs:a:1:task/b/c"]),
        ):
            code, _, err = self.run_ecs("remove")
        self.assertEqual(code, 1)
        self.assertIn("1 tasks have not ended within 0 s, such as arn:aws:ecs:a:1:task/b/c", err)

class Refusals(Account):
    def refused(self, *arguments, code=1, **more):
        got, _, err = self.run_ecs(*arguments, **more)
        self.assertEqual(got, code, err)
        self.assertNotIn("Traceback", err)
        return err

    def test_a_cluster_that_is_not_there(self):
        err = self.refused("register", "--cluster", "demo", *TAG)
        self.assertIn("there is no ECS cluster demo in region eu-west-1", err)
        self.assertIn("aws ecs create-cluster --cluster-name demo", err)

    def test_no_tag_the_first_time(self):
        self.assertIn("say which: --tag TAG", self.refused("register"))

    def test_the_region_may_stand_in_the_environment(self):
        for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            with mock.patch.dict(os.environ, {variable: "eu-north-1"}):
                self.assertIn("in region eu-north-1", self.refused("status", region=None))

    def test_no_region_and_no_credentials(self):
        self.assertIn("give --region", self.refused("status", region=None))
        with mock.patch.dict(os.environ):
            for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
                del os.environ[variable]
            self.assertIn("no credentials", self.refused("status"))

    def test_an_endpoint_that_does_not_answer(self):
        err = self.refused("status", "--endpoint-url", "http://127.0.0.1:9")
        self.assertIn('Could not connect to the endpoint URL: "http://127.0.0.1:9/"', err)

    def test_bad_usage(self):
        for arguments in (["nothing"], ["status", "--dry-run"], ["register", "--events-queue-url", "a"]):
            with self.subTest(arguments):
                self.assertIn("see scripts/ecs --help", self.refused(*arguments, code=2))

    def test_a_file_that_is_wrong_touches_nothing(self):
        self.edit("task-definitions/scheduler.json", '"essential"', '"esential"')
        err = self.refused("register", *TAG)
        self.assertIn('task-definitions/scheduler.json: Unknown parameter in containerDefinitions[0]: "esential"', err)
        self.assertEqual(self.client("iam").list_roles()["Roles"], [])

    def test_what_somebody_else_has_made_is_left_alone(self):
        with mock.patch.object(resources, "OWNER_TAG", "somebody-elses"):
            self.registered(*TAG)
        for verb in (("register", *TAG), ("remove",)):
            self.assertRegex(self.refused(*verb), f"^ecs: .* is there, and was not made by scripts/ecs for cluster {CLUSTER}")
        self.assertEqual(len(self.ecs.list_task_definitions()["taskDefinitionArns"]), 5)
        # Of every kind.
        clients = command.Clients(REGION, None)
        deployment = deploy.Deployment(clients, command.options(["status", "--files", str(self.directory)]), print)
        for thing in deployment.resources:
            with self.subTest(str(thing)), self.assertRaisesRegex(Refused, "was not made by scripts/ecs"):
                thing.read()
            if isinstance(thing, resources.TaskDefinition):
                with self.assertRaisesRegex(Refused, "was not made by scripts/ecs"):
                    thing.delete()

    def test_what_of_a_service_cannot_change_is_told(self):
        self.registered(*TAG)
        self.edit("services/scheduler.json", '"launchType": "EC2"', '"launchType": "EXTERNAL"')
        self.assertIn("launchType cannot change from EC2 to EXTERNAL; remove the service first", self.refused("register"))


class Rights(Account):
    """moto looks at actions, and at no conditions: those are test_policies' matter."""

    def operator(self, policy):
        """Makes calls from now on those of a user with this policy."""
        iam = self.client("iam")
        iam.create_user(UserName="operator")
        iam.put_user_policy(UserName="operator", PolicyName="operator", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="operator")["AccessKey"]
        os.environ.update(AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"])
        del os.environ["AWS_SESSION_TOKEN"]

    def test_who_may_not_is_told_what_and_where_the_rights_are(self):
        most = ["ecs:*", "logs:*", "secretsmanager:*", "sqs:*", "events:*"]
        self.operator({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": most, "Resource": "*"}]})
        with enable_iam_authentication():
            code, _, err = self.run_ecs("register", *TAG)
        self.assertEqual(code, 1)
        self.assertIn("ecs: GetRole: not allowed: User: arn:aws:iam::123456789012:user/operator is not authorized", err)
        self.assertIn("cloud-config/ecs/iam/operator.json", err)
        self.assertEqual(len(err.splitlines()), 1)

    # The rights that a call takes beside the one of its name.
    MORE = {
        "CreateRole": {"iam:TagRole"},
        "CreateInstanceProfile": {"iam:TagInstanceProfile"},
        "AddRoleToInstanceProfile": {"iam:PassRole"},
        "RegisterTaskDefinition": {"ecs:TagResource", "iam:PassRole"},
        "CreateService": {"ecs:TagResource"},
        "CreateSecret": {"secretsmanager:TagResource"},
        "CreateQueue": {"sqs:TagQueue"},
        "PutRule": {"events:TagResource"},
        "CreateLogGroup": {"logs:TagResource"},
    }
    # docs/ecs.md: the operator reads the token, for curl.
    BY_HAND = {"secretsmanager:GetSecretValue"}

    def test_the_operator_may_do_what_scripts_ecs_does_and_nothing_else(self):
        called = set()

        def note(model, **_):
            # The test itself makes an instance.
            if model.service_model.service_name != "ec2":
                called.add((model.service_model.service_name, model.name))

        whole = boto3.session.Session.client

        def client(session, service, **options):
            made = whole(session, service, **options)
            made.meta.events.register("before-call", note)
            return made

        with mock.patch.object(boto3.session.Session, "client", client):
            self.registered(*TAG)
            self.change_everything()
            self.registered()
            self.run_ecs("status")
            instance = Remove.instance(self)
            self.ecs.start_task(
                cluster=CLUSTER, taskDefinition=f"{CLUSTER}-priority1", containerInstances=[instance]
            )
            self.run_ecs("remove")
            self.ecs.deregister_container_instance(cluster=CLUSTER, containerInstance=instance, force=True)
            self.assertEqual(self.run_ecs("remove")[0], 0)
        needed = {f"{service}:{name}" for service, name in called} | self.BY_HAND
        for _, name in called:
            needed |= self.MORE.get(name, set())
        self.assertEqual(actions("operator"), needed)

    def change_everything(self):
        """So that the next `register` makes each call that changes something."""
        iam = botocore.session.get_session().create_client("iam", region_name=REGION)
        sqs = botocore.session.get_session().create_client("sqs", region_name=REGION)
        role = f"{CLUSTER}-{REGION}-instance"
        arn = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
        iam.detach_role_policy(RoleName=role, PolicyArn=arn)
        iam.attach_role_policy(RoleName=role, PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        queue = sqs.get_queue_url(QueueName=f"{CLUSTER}-events")["QueueUrl"]
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})
        self.edit("config/scheduler.toml", "slots_per_instance = 3", "slots_per_instance = 4")


if __name__ == "__main__":
    unittest.main()
