"""A model configuration as somebody deploys it: config.pbtxt, and the patch that brings it to a cluster."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

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
    """A ConfigMap. Its name changes with its content, so that a new one makes a new revision."""
    body = "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {config_map_name(model, text)}\n"
        f"data:\n  config.pbtxt: |\n{body}"
    )


def mlservice_patch(model: str, text: str) -> str:
    """A JSON patch that mounts the ConfigMap over the model's file, for an MLService of `bench deploy`."""
    mount = f"{MODELS}/{model}/config.pbtxt"
    return (
        f"- op: add\n  path: {_POD}/volumes/-\n"
        f"  value: {{name: {_VOLUME}, configMap: {{name: {config_map_name(model, text)}}}}}\n"
        f"- op: add\n  path: {_POD}/containers/0/volumeMounts/-\n"
        f"  value: {{name: {_VOLUME}, mountPath: '{mount}', subPath: config.pbtxt, readOnly: true}}\n"
    )


def config_map_name(model: str, text: str) -> str:
    plain = re.sub("[^a-z0-9]+", "-", model.lower()).strip("-")[:40].strip("-")
    return f"{plain or 'model'}-config-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
