"""The command line of scripts/ecs, whose head is its help."""

import argparse
import os
import sys
from pathlib import Path

import boto3
import botocore.exceptions
from botocore.config import Config

from ecs.deploy import Deployment
from ecs.files import Refused

FILES = Path(__file__).resolve().parents[3] / "cloud-config" / "ecs"

# Of a single call, and how often it is tried: an endpoint that is not there is said within half a minute.
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS_MAX = 4

# Codes of those who may not, or are not known; the same for all of AWS.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
UNKNOWN = {"UnrecognizedClientException", "InvalidClientTokenId", "ExpiredToken", "ExpiredTokenException", "SignatureDoesNotMatch"}


class Clients:
    """One client for each service that is used, made when it is."""

    def __init__(self, region, endpoint_url):
        # The one variable that all other SDKs, and version 2 of the CLI, read and boto3 does not.
        region = region or os.environ.get("AWS_REGION")
        self._session = boto3.session.Session(region_name=region or None)
        self._endpoint_url = endpoint_url
        self._config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS_MAX},
        )
        self.region = self._session.region_name

    def __getattr__(self, service):
        client = self._session.client(service, endpoint_url=self._endpoint_url, config=self._config)
        setattr(self, service, client)
        return client


def options(arguments):
    parser = argparse.ArgumentParser(prog="scripts/ecs", add_help=False, usage="see scripts/ecs --help")
    parser.add_argument("verb", choices=("register", "status", "remove"))
    parser.add_argument("--cluster", default="force12-demo")
    parser.add_argument("--region")
    parser.add_argument("--endpoint-url")
    parser.add_argument("--files", default=FILES)
    parser.add_argument("--images")
    parser.add_argument("--tag")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--ecs-only", action="store_true")
    parser.add_argument("--no-services", action="store_true")
    parser.add_argument("--events-queue-url")
    parser.add_argument("--token-secret-arn")
    given = parser.parse_args(arguments)
    if (given.events_queue_url or given.token_secret_arn) and not given.ecs_only:
        parser.error("--events-queue-url and --token-secret-arn go with --ecs-only; otherwise both are made")
    if given.dry_run and given.verb == "status":
        parser.error("status changes nothing; --dry-run is for register and remove")
    return given


def in_words(error):
    """One line for the operator."""
    if isinstance(error, botocore.exceptions.ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", "")
        call = error.operation_name
        if code in DENIED:
            return f"{call}: not allowed: {message}. The rights that it takes are in cloud-config/ecs/iam/operator.json"
        if code in UNKNOWN:
            return f"{call}: the credentials are not accepted ({code}): {message}. Log in again, or look at AWS_PROFILE"
        return f"{call}: {code}: {message}"
    if isinstance(error, botocore.exceptions.NoRegionError):
        return "no region: give --region, or set AWS_REGION"
    if isinstance(error, (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError)):
        return f"no credentials: {error}. Set AWS_PROFILE, or run: aws configure"
    if isinstance(error, botocore.exceptions.ParamValidationError):
        return str(error).replace("\n", " ")
    return str(error)


def main(arguments):
    given = options(arguments)

    def say(line):
        print(line, flush=True)

    try:
        aws = Clients(given.region, given.endpoint_url)
        deployment = Deployment(aws, given, say)
        if given.verb == "register":
            deployment.register()
            return 0
        if given.verb == "remove":
            return 0 if deployment.remove() else 1
        return 0 if deployment.status() else 1
    except (Refused, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        for line in (str(error) if isinstance(error, Refused) else in_words(error)).split("\n"):
            print(f"ecs: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ecs: interrupted; what was done stays, and the same again goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read has read enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
