"""What the tests share: a copy of cloud-config/ecs to break, an account that moto plays, and scripts/ecs run on it."""

import contextlib
import io
import json
import os
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import boto3
import botocore.loaders
import botocore.session
import moto
import moto.iam.models

from ecs import __main__ as command
from ecs import deploy
from ecs.files import Files

CLOUD_CONFIG = Path(__file__).resolve().parents[4] / "cloud-config" / "ecs"
CLUSTER = "force12-demo"
REGION = "eu-west-1"
# moto's.
ACCOUNT = "123456789012"
# Of AWS's own policies those that are attached here: to read all 1,000 of them takes moto a second.
AWS_POLICIES = json.dumps(
    {
        name: policy
        for name, policy in json.loads(moto.iam.models.aws_managed_policies_data).items()
        if name in ("AmazonSSMManagedInstanceCore", "ReadOnlyAccess")
    }
)

VALUES = {
    "YOUR_ECS_CLUSTER": CLUSTER,
    "YOUR_AWS_PARTITION": "aws",
    "YOUR_AWS_REGION": REGION,
    "YOUR_AWS_ACCOUNT": ACCOUNT,
    "YOUR_IMAGE_PREFIX": "example.org/force12",
    "YOUR_IMAGE_TAG": "1a2b3c4",
    "YOUR_TOKEN_SECRET_ARN": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{CLUSTER}/token-AbCdEf",
    "YOUR_EVENTS_QUEUE_URL": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{CLUSTER}-events",
}
# The service models, which every session would read anew.
LOADER = botocore.loaders.create_loader()


def files(directory=CLOUD_CONFIG):
    filled = Files(directory)
    filled.values.update(VALUES)
    return filled


class Directory(unittest.TestCase):
    """Has a copy of cloud-config/ecs."""

    def setUp(self):
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        shutil.copytree(CLOUD_CONFIG, self.directory, dirs_exist_ok=True)

    def edit(self, name, old, new):
        path = self.directory / name
        text = path.read_text()
        self.assertIn(old, text)
        path.write_text(text.replace(old, new))


class Account(Directory):
    """Has an empty account with an ECS cluster in it, and runs scripts/ecs there."""

    def setUp(self):
        super().setUp()
        environment = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        for patch in (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(deploy, "LOOK_S", 0),
            mock.patch.object(botocore.session, "create_loader", lambda *_: LOADER),
            mock.patch.object(moto.iam.models, "aws_managed_policies_data", AWS_POLICIES),
            moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}),
        ):
            patch.__enter__()
            self.addCleanup(patch.__exit__, None, None, None)
        for variable in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
            os.environ.pop(variable, None)
        self.ecs = self.client("ecs")
        self.ecs.create_cluster(clusterName=CLUSTER)

    def client(self, service):
        return boto3.client(service, region_name=REGION)

    def run_ecs(self, *arguments, region=REGION):
        """The exit code, and what was said on stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        where = ["--region", region] if region else []
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = command.main([*arguments, *where, "--files", str(self.directory)])
            except SystemExit as end:
                code = end.code
        return code, out.getvalue(), err.getvalue()

    def registered(self, *arguments):
        """What `register` says, which has to succeed."""
        code, out, err = self.run_ecs("register", *arguments)
        self.assertEqual((code, err), (0, ""), out)
        return out
