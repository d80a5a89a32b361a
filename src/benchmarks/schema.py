"""The format of benchmarks/results/*.json, and reading and writing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VERSION = 1
RESULTS = Path(__file__).resolve().parent / "results"

_TIME = {"type": "number", "exclusiveMinimum": 0, "description": "microseconds a call"}
_BYTES = {"type": "integer", "description": "bytes, of one forward and backward (memory.py)"}
_RESULT = {
    "type": "object",
    "required": ["implementation", "status"],
    "properties": {
        "implementation": {"type": "string"},
        "status": {"enum": ["ok", "yardstick", "refused", "failed", "skipped"]},
        "reason": {"type": "string", "description": "why there are no samples"},
        "samples": {"type": "array", "minItems": 1, "items": _TIME},
        "q1": _TIME,
        "median": _TIME,
        "q3": _TIME,
        "kept": _BYTES,
        "kept_beyond": _BYTES,
        "peak": _BYTES,
        "launches": {"type": "integer", "minimum": 0, "description": "kernels that a call puts on the GPU"},
    },
    "if": {"properties": {"status": {"enum": ["ok", "yardstick"]}}},
    "then": {"required": ["samples", "q1", "median", "q3"]},
    "else": {"required": ["reason"], "not": {"required": ["samples"]}},
    "additionalProperties": False,
}
_ROW = {
    "type": "object",
    "required": [
        "operator",
        "direction",
        "dtype",
        "layout",
        "numel",
        "threads",
        "memory",
        "device",
        "block",
        "results",
    ],
    "properties": {
        "operator": {"enum": ["learnable_leaky_relu", "leaky_relu", "straight_through_relu"]},
        "direction": {"enum": ["forward", "backward", "both"]},
        "dtype": {"enum": ["float64", "float32", "float16", "bfloat16"]},
        "layout": {"enum": ["flat", "nchw", "channels_last", "btc", "sliced", "block"]},
        "numel": {"type": "integer", "minimum": 1},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "threads": {"type": "integer", "minimum": 1},
        "memory": {"enum": ["default", "fresh", "mapped", "cached"]},
        "device": {"enum": ["cpu", "cuda"]},
        "block": {"type": "string"},
        "seconds": {"type": "number", "description": "how long the row took, with checks and compilation"},
        "bytes_to_move": {"type": ["number", "null"]},
        "results": {"type": "array", "items": _RESULT},
    },
    "additionalProperties": False,
}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Benchmark results of leaky_ext on one device",
    "type": "object",
    "required": ["schema", "date", "suite", "complete", "threads", "device", "software", "rows"],
    "properties": {
        "schema": {"const": VERSION},
        "date": {"type": "string", "format": "date-time"},
        "suite": {"enum": ["quick", "full"]},
        "filter": {"type": "string"},
        "complete": {"type": "boolean", "description": "false where the run was cut short"},
        "threads": {"type": "integer", "minimum": 1, "description": "the most that a row was measured with"},
        "seconds": {"type": "number", "description": "how long the run took"},
        "device": {
            "type": "object",
            "required": ["type", "name", "cores", "memory_gib"],
            "properties": {"type": {"enum": ["cpu", "cuda"]}, "name": {"type": "string"}},
        },
        "software": {
            "type": "object",
            "required": ["leaky_ext", "commit", "torch", "python", "system", "config"],
            "properties": {"commit": {"type": ["string", "null"]}},
        },
        "rows": {"type": "array", "items": _ROW},
    },
    "additionalProperties": False,
}


def validate(result: dict[str, Any]) -> None:
    import jsonschema  # needed to read results, not to take them

    jsonschema.validate(result, SCHEMA)


def load(path: Path) -> dict[str, Any]:
    result = json.loads(path.read_text())
    validate(result)
    return result


def save(result: dict[str, Any], path: Path) -> None:
    """One row a line, so that a diff of two results can be read."""
    head = {key: value for key, value in result.items() if key != "rows"}
    text = json.dumps(head, indent=1)[:-2]
    rows = ",\n".join("  " + json.dumps(row) for row in result["rows"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{text},\n "rows": [\n{rows}\n ]\n}}\n')
