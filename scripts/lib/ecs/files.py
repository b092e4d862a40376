"""The files under cloud-config/ecs: read, filled in, checked against the service models of botocore."""

import functools
import json
import re
from pathlib import Path

import botocore.session
from botocore.validate import ParamValidator

SERVICES = ("demand-rng", "scheduler", "status-api")
WORKLOADS = ("priority1", "priority2")
TASK_DEFINITIONS = (*SERVICES, *WORKLOADS)

# A word to be filled in.
PLACEHOLDER = re.compile(r"YOUR_[A-Z0-9_]*[A-Z0-9]")

# The text of a service's configuration, which is filled in itself.
CONFIGS = {
    "YOUR_DEMAND_RNG_TOML": "config/demand-rng.toml",
    "YOUR_SCHEDULER_TOML": "config/scheduler.toml",
    "YOUR_STATUS_API_TOML": "config/status-api.toml",
}

# The options that give a value where nothing else does.
OPTIONS = {"YOUR_EVENTS_QUEUE_URL": "--events-queue-url", "YOUR_TOKEN_SECRET_ARN": "--token-secret-arn"}

# The largest task definition that ECS takes, in bytes.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html
TASK_DEFINITION_BYTES_MAX = 64 * 1024


class Refused(Exception):
    """What cannot be done, in words for whoever asked for it."""


class Files:
    """A directory like cloud-config/ecs, with the values for its placeholders."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.values = {}

    def text(self, name):
        try:
            return (self.directory / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"{self.directory / name}: cannot be read: {error}") from error

    def filled(self, name):
        """The text of the file, with every placeholder outside of comments filled in."""
        lines = self.text(name).split("\n")
        return "\n".join(line if line.lstrip().startswith("#") else self._fill(name, line) for line in lines)

    def json(self, name):
        """The document in the file, with every placeholder filled in."""
        text = self.text(name)
        try:
            document = json.loads(text, object_pairs_hook=_no_key_twice)
        except ValueError as error:
            raise Refused(f"{self.directory / name}: not JSON: {error}") from error
        return self._fill_in(name, document)

    def request(self, name, service, operation):
        """The document in the file, as the input of an API operation."""
        document = self.json(name)
        mistakes = mistakes_of(document, service, operation)
        if mistakes:
            raise Refused("\n".join(f"{self.directory / name}: {mistake}" for mistake in mistakes))
        if operation == "RegisterTaskDefinition":
            size = len(json.dumps(document).encode())
            if size > TASK_DEFINITION_BYTES_MAX:
                raise Refused(
                    f"{self.directory / name}: {size} bytes with its configuration filled in; ECS takes at most "
                    f"{TASK_DEFINITION_BYTES_MAX}"
                )
        return document

    def _fill_in(self, name, value):
        if isinstance(value, str):
            return self._fill(name, value)
        if isinstance(value, list):
            return [self._fill_in(name, item) for item in value]
        if isinstance(value, dict):
            return {key: self._fill_in(name, item) for key, item in value.items()}
        return value

    def _fill(self, name, text):
        def value(found):
            placeholder = found.group()
            if placeholder in CONFIGS:
                return self.filled(CONFIGS[placeholder])
            if placeholder not in self.values:
                known = ", ".join(sorted([*self.values, *CONFIGS]))
                how = f"give {OPTIONS[placeholder]}" if placeholder in OPTIONS else f"known are: {known}"
                raise Refused(f"{self.directory / name}: nothing is known to fill in for {placeholder}; {how}")
            return self.values[placeholder]

        return PLACEHOLDER.sub(value, text)


def _no_key_twice(pairs):
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return document


def mistakes_of(document, service, operation):
    """What is wrong with `document` as the input of the operation, one line each."""
    shape = _model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(document, shape)
    if report.has_errors():
        return report.generate_report().split("\n")
    return list(_unknown_words(document, shape, ""))


@functools.cache
def _model(service):
    return botocore.session.get_session().get_service_model(service)


def _unknown_words(value, shape, place):
    """botocore leaves it to the service to refuse words that are none of those it knows."""
    if shape.type_name == "structure":
        for key, item in value.items():
            yield from _unknown_words(item, shape.members[key], f"{place}.{key}" if place else key)
    elif shape.type_name == "list":
        for position, item in enumerate(value):
            yield from _unknown_words(item, shape.member, f"{place}[{position}]")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _unknown_words(item, shape.value, f"{place}.{key}")
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{place}: {value!r} is none of {', '.join(shape.enum)}"
