"""Model configurations as Triton's load API wants them: read from a file, varied, and looked into.

A configuration is the JSON form of Triton's ModelConfig message, snake_case names. An override given to
the load API replaces the whole of it, so a variant always starts from a complete one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from bench.core import vit_variants
from bench.core.cell import ServerConfiguration
from bench.core.errors import ModelLoadFailed


def read(path: Path) -> dict[str, Any]:
    """A config.pbtxt. Raises ModelLoadFailed when it is missing or does not parse."""
    try:
        message = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except FileNotFoundError as error:
        raise ModelLoadFailed(f"{path} does not exist: check --repository and --model.") from error
    except text_format.ParseError as error:
        raise ModelLoadFailed(f"{path} is no model configuration: {error}.") from error
    config = _numbers(
        json_format.MessageToDict(message, preserving_proto_field_name=True), message.DESCRIPTOR
    )
    config.setdefault("name", path.parent.name)
    return config


def variant(config: Mapping[str, Any], server: ServerConfiguration) -> dict[str, Any]:
    """`config` with what `server` asks for; what it leaves open stays as it is."""
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    if server.instances is not None:
        changed["instance_group"] = _instance_groups(changed.get("instance_group") or [], server.instances)
        if vit_variants.has_variants(changed):
            # Where nothing else differs, Triton keeps the instances that run and only adds some: ours would
            # then go on with the cores that they had alone (13 img/s instead of 49, two on two cores).
            changed["parameters"] = {
                **changed["parameters"],
                "instances": {"string_value": f"{server.instances}"},
            }
    if server.max_batch is not None:
        changed["max_batch_size"] = server.max_batch
    if server.max_queue_delay_us == -1:
        changed.pop("dynamic_batching", None)
    elif server.max_queue_delay_us is not None:
        batching = dict(changed.get("dynamic_batching") or {})
        changed["dynamic_batching"] = {**batching, "max_queue_delay_microseconds": server.max_queue_delay_us}
    if server.preferred_batches:
        batching = dict(changed.get("dynamic_batching") or {})
        changed["dynamic_batching"] = {**batching, "preferred_batch_size": list(server.preferred_batches)}
    if server.parameters:
        chosen = {name: {"string_value": value} for name, value in server.parameters}
        changed["parameters"] = {**changed.get("parameters", {}), **chosen}
        changed = vit_variants.with_sections(changed)
    return changed


def _instance_groups(groups: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """One group of the first group's kind; `count` is per GPU, as Triton counts it."""
    first = dict(groups[0]) if groups else {"kind": "KIND_AUTO"}
    first.pop("name", None)
    return [{**first, "count": count}]


@dataclass(frozen=True, slots=True)
class ServedConfig:
    """What a served configuration says of the things a cell varies."""

    instances: int
    max_batch: int
    queue_delay_us: int | None  # None: no dynamic batching
    parameters: Mapping[str, str]
    preferred_batches: tuple[int, ...] = ()


def served(config: Mapping[str, Any]) -> ServedConfig:
    groups = config.get("instance_group") or [{"count": 1}]
    batching = config.get("dynamic_batching")
    delay = None if batching is None else int(batching.get("max_queue_delay_microseconds", 0))
    parameters = config.get("parameters") or {}
    return ServedConfig(
        instances=sum(int(group.get("count", 1)) for group in groups),
        max_batch=int(config.get("max_batch_size", 0)),
        queue_delay_us=delay,
        preferred_batches=tuple(int(size) for size in (batching or {}).get("preferred_batch_size", ())),
        parameters={name: str(entry.get("string_value", "")) for name, entry in parameters.items()},
    )


def _numbers(config: Mapping[str, Any], message: Any) -> dict[str, Any]:
    """protobuf's JSON writes 64-bit integers as strings; numbers again, as Triton itself shows them."""
    fields = message.fields_by_name
    return {
        name: [_number(each, fields[name]) for each in entry]
        if isinstance(entry, list)
        else _number(entry, fields[name])
        for name, entry in config.items()
    }


def _number(entry: Any, field: Any) -> Any:
    inner = field.message_type
    if inner is None:
        return int(entry) if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else entry
    if inner.GetOptions().map_entry:
        return {key: _number(value, inner.fields_by_name["value"]) for key, value in entry.items()}
    return _numbers(entry, inner)
