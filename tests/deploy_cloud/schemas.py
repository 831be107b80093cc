"""The request bodies of RunPod's REST API v2, as its documentation gives them (what the tool uses, and no more).

Written apart from the tool's own models, so that neither can hide a mistake of the other.
"""

from typing import Any

from jsonschema import Draft202012Validator

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
TEXTS: Schema = {"type": "array", "items": {"type": "string"}}


def _object(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _gpu(required: tuple[str, ...]) -> Schema:
    return _object(
        {
            "pools": {**TEXTS, "minItems": 1},
            "count": {"type": "integer", "minimum": 1},
            "excludedTypes": {**TEXTS, "uniqueItems": True},
        },
        required,
    )


CPU: Schema = {
    "type": "array",
    "minItems": 1,
    "uniqueItems": True,
    "items": _object({"id": TEXT, "vcpuCount": {"type": "integer", "minimum": 2}}, ("id", "vcpuCount")),
}
WORKERS = _object(
    {
        "min": {"type": "integer", "minimum": 0},
        "max": {"type": "integer", "minimum": 0},
        "idleTimeout": {"type": "integer", "minimum": 1, "maximum": 3600},
    }
)
SCALING: Schema = {
    "oneOf": [
        _object(
            {"type": {"const": "QUEUE_DELAY"}, "queueDelay": {"type": "number", "minimum": 0.5}},
            ("type", "queueDelay"),
        ),
        _object(
            {"type": {"const": "REQUEST_COUNT"}, "requestCount": {"type": "integer", "minimum": 1}},
            ("type", "requestCount"),
        ),
    ]
}
SHARED: Schema = {
    "name": TEXT,
    "image": {"type": "string"},
    "args": {"type": "string"},
    "disk": {"type": "integer", "minimum": 1},
    "ports": TEXTS,
    "env": {"type": "object", "additionalProperties": {"type": "string"}},
    "registry": {"type": ["string", "null"]},
    "cpu": CPU,
    "workers": WORKERS,
    "scaling": SCALING,
    "timeout": {"type": "integer"},
    "flashboot": {"enum": ["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"]},
    "networkVolumes": TEXTS,
    "dataCenterIds": TEXTS,
}
CREATE_ENDPOINT = Draft202012Validator(
    _object(
        {**SHARED, "gpu": _gpu(("pools",)), "type": {"enum": ["QUEUE", "LOAD_BALANCER"]}},
        ("name", "type", "scaling", "image"),
    )
)
UPDATE_ENDPOINT = Draft202012Validator(
    _object({**SHARED, "gpu": {**_gpu(()), "dependentRequired": {"excludedTypes": ["pools"]}}})
)
SIZE: Schema = {"type": "integer", "minimum": 10, "maximum": 4096}
CREATE_VOLUME = Draft202012Validator(
    _object(
        {"name": TEXT, "dataCenter": TEXT, "size": SIZE, "type": {"enum": ["STANDARD", "HIGH_PERFORMANCE"]}},
        ("name", "size", "dataCenter"),
    )
)
UPDATE_VOLUME = Draft202012Validator({**_object({"name": TEXT, "size": SIZE}), "minProperties": 1})


def faults(schema: Draft202012Validator, body: object) -> list[str]:
    return [f"{fault.json_path}: {fault.message}" for fault in schema.iter_errors(body)]
