"""Variants of the shipped ViT: what its parameters may be, and what they make of its configuration.

`wire` and `output` change what travels, so they change the `input` and `output` sections too. Only a model
that has these parameters is touched: others may call theirs the same, and mean something else.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any


class Precision(StrEnum):
    """What the network computes in; answers are FP32 always."""

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"
    FP16 = "fp16"


class Compile(StrEnum):
    """torch.compile; on a GPU as CUDA graphs, one a batch bucket."""

    NONE = "none"
    DEFAULT = "default"
    MAX_AUTOTUNE = "max-autotune"


class Wire(StrEnum):
    """How an image travels."""

    FP32 = "fp32"
    UINT8 = "uint8"
    JPEG = "jpeg"  # encoded files, zeros after the shorter ones; the server decodes


class Output(StrEnum):
    LAST_HIDDEN_STATE = "last_hidden_state"
    POOLER_OUTPUT = "pooler_output"
    BOTH = "both"


AXES: Mapping[str, type[StrEnum]] = {
    "precision": Precision,
    "compile": Compile,
    "wire": Wire,
    "output": Output,
}
DEFAULTS: Mapping[str, str] = {
    "precision": Precision.FP32,
    "compile": Compile.NONE,
    "wire": Wire.FP32,
    "output": Output.LAST_HIDDEN_STATE,
}
IMAGE = "image"
# An image of 224 x 224 has 196 patches of 16 x 16. The class token is one more.
_TOKENS = 197
_INPUTS: Mapping[str, dict[str, Any]] = {
    Wire.FP32: {"data_type": "TYPE_FP32", "dims": [-1, -1, -1]},
    Wire.UINT8: {"data_type": "TYPE_UINT8", "dims": [-1, -1, -1]},
    # A file an item, not BYTES: Triton 2.51's Python stub dies of those under numpy >= 2.
    Wire.JPEG: {"data_type": "TYPE_UINT8", "dims": [-1]},
}


def has_variants(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is one of a ViT as the suite ships it."""
    names = [entry.get("name") for entry in config.get("input") or ()]
    return names == [IMAGE] and AXES.keys() <= (config.get("parameters") or {}).keys()


def chosen(config: Mapping[str, Any]) -> dict[str, str]:
    """The variant that a configuration says; empty for a model without variants."""
    if not has_variants(config):
        return {}
    parameters = config["parameters"]
    return {name: str(parameters[name].get("string_value", "")) for name in AXES}


def with_sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the inputs and outputs that its parameters ask for. Unknown values: the model refuses."""
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    variant = chosen(config)
    if variant.get("wire") in _INPUTS:
        changed["input"] = [{**entry, **_INPUTS[variant["wire"]]} for entry in changed["input"]]
    if variant.get("output") in list(Output):
        hidden = _hidden(changed["output"])
        changed["output"] = [_output(changed["output"], name, hidden) for name in outputs_of(variant)]
    return changed


def outputs_of(variant: Mapping[str, str]) -> tuple[str, ...]:
    output = variant["output"]
    return (Output.LAST_HIDDEN_STATE, Output.POOLER_OUTPUT) if output == Output.BOTH else (output,)


def _hidden(outputs: Sequence[Mapping[str, Any]]) -> int:
    """Of either output it is the last axis."""
    return int(outputs[0]["dims"][-1]) if outputs else -1


def _output(known: Sequence[Mapping[str, Any]], name: str, hidden: int) -> dict[str, Any]:
    """As it was, where it was."""
    for entry in known:
        if entry.get("name") == name:
            return dict(entry)
    dims = [_TOKENS, hidden] if name == Output.LAST_HIDDEN_STATE else [hidden]
    return {"name": str(name), "data_type": "TYPE_FP32", "dims": dims}


def mismatches(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a served configuration's inputs and outputs are not those of its parameters; a phrase each."""
    wanted = with_sections(config)
    found = []
    for section in ("input", "output"):
        want, have = _said(wanted.get(section)), _said(config.get(section))
        if want != have:
            found.append(f"{section}: asked {want}, served {have}")
    return tuple(found)


def _said(section: Sequence[Mapping[str, Any]] | None) -> str:
    return ", ".join(
        f"{entry.get('name')} {entry.get('data_type')} {[int(axis) for axis in entry.get('dims') or ()]}"
        for entry in section or ()
    )


def columns(config: Mapping[str, Any], asked: Sequence[tuple[str, str]]) -> dict[str, str | None]:
    """The variant of a cell: as it was asked for, else as served; None for a model without variants."""
    known = {**chosen(config), **dict(asked)}
    return {name: known.get(name) for name in AXES}
