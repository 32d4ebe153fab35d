"""A model configuration as somebody deploys it: config.pbtxt, and the patch that brings it to a cluster."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import yaml
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from bench.cluster.platforms.pod_template import MODELS

_POD = "/spec/releases/0/predictor/template/spec"
_VOLUME = "model-config"


def config_text(config: Mapping[str, Any]) -> str:
    """config.pbtxt of a ModelConfig in JSON form; fields this client does not know are left out."""
    message = json_format.ParseDict(dict(config), model_config_pb2.ModelConfig(), ignore_unknown_fields=True)
    return str(text_format.MessageToString(message, as_utf8=True))


def config_map(model: str, text: str) -> str:
    """A ConfigMap in YAML. Its name changes with its content, so that a new one makes a new revision."""
    return _yaml(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": config_map_name(model, text)},
            "data": {"config.pbtxt": text},
        }
    )


def mlservice_patch(model: str, text: str) -> str:
    """A JSON patch in YAML for an MLService of `bench deploy`: mounts the ConfigMap over the model's file."""
    volume = {"name": _VOLUME, "configMap": {"name": config_map_name(model, text)}}
    mount = {
        "name": _VOLUME,
        "mountPath": f"{MODELS}/{model}/config.pbtxt",
        "subPath": "config.pbtxt",
        "readOnly": True,
    }
    return _yaml(
        [
            {"op": "add", "path": f"{_POD}/volumes/-", "value": volume},
            {"op": "add", "path": f"{_POD}/containers/0/volumeMounts/-", "value": mount},
        ]
    )


def config_map_name(model: str, text: str) -> str:
    plain = re.sub("[^a-z0-9]+", "-", model.lower()).strip("-")[:40].strip("-")
    return f"{plain or 'model'}-config-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, as somebody would."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)


def _yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)
