"""Two states of a thing, brought to one form and told apart."""

import difflib
import json

# What ECS adds to a task definition when it is registered, and the tags, which stand elsewhere in its answer.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskDefinition.html
ADDED_BY_ECS = {
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
    "tags",
}

# Lists whose order means nothing, by the key that tells their items apart. ECS gives them back in any order.
UNORDERED = {"environment": "name", "secrets": "name", "portMappings": "containerPort", "volumes": "name"}

def task_definition(document):
    """A task definition as it stands in a file, or as ECS describes it, in a form in which both are the same.

    ECS fills in defaults, all of them empty but these: a container is `essential`, takes 0 `cpu`, and its ports are tcp.
    """
    plain = {key: value for key, value in document.items() if key not in ADDED_BY_ECS}
    plain["containerDefinitions"] = [_container(container) for container in plain.get("containerDefinitions", [])]
    return _without_what_is_empty(plain)


def _container(container):
    container = {"essential": True, **container}
    if container.get("cpu") == 0:
        del container["cpu"]
    container["portMappings"] = [{"protocol": "tcp", **port} for port in container.get("portMappings") or []]
    return container


def _without_what_is_empty(value, key=None):
    if isinstance(value, dict):
        plain = {inner: _without_what_is_empty(item, inner) for inner, item in value.items()}
        return {inner: item for inner, item in sorted(plain.items()) if not _is_empty(item)}
    if isinstance(value, list):
        items = [_without_what_is_empty(item) for item in value]
        if key in UNORDERED:
            items.sort(key=lambda item: str(item.get(UNORDERED[key])))
        return items
    return value


def _is_empty(value):
    """Not 0, which is a value of its own, such as for a time."""
    return value is None or value is False or value in ("", [], {})


def told(live, wanted):
    """Of what is wanted, what the answer tells anything about: emulators leave things out that AWS always tells."""
    return {
        key: told(live[key], value) if isinstance(value, dict) and isinstance(live[key], dict) else value
        for key, value in wanted.items()
        if key in live
    }


def shaped(live, wanted):
    """Of what is there, what the wanted state says anything about."""
    return {
        key: shaped(live[key], value) if isinstance(value, dict) and isinstance(live[key], dict) else live[key]
        for key, value in wanted.items()
        if key in live
    }


def diff(live, wanted):
    """The lines that differ, as `diff -u` shows them; none where both are the same."""
    lines = difflib.unified_diff(_lines(live), _lines(wanted), "there", "wanted", lineterm="", n=2)
    return list(lines)


def _lines(value):
    return json.dumps(_readable(value), indent=2, sort_keys=True, ensure_ascii=False).split("\n")


def _readable(value):
    """Text of several lines, such as a configuration, as a list of them."""
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, str) and "\n" in value:
        return value.split("\n")
    return value
