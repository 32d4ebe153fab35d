"""What the model's configuration asks of it, and whether that can be."""

from dataclasses import dataclass

import torch
from network import MODES, OUTPUTS, PRECISIONS

# Datatype and axes of an item as they travel, and the pixels' type on the device.
WIRES = {
    "fp32": ("TYPE_FP32", 3, torch.float32),
    "uint8": ("TYPE_UINT8", 3, torch.uint8),
    "jpeg": ("TYPE_UINT8", 1, torch.uint8),
}
_ALLOWED = {"precision": PRECISIONS, "compile": MODES, "wire": WIRES, "output": OUTPUTS}
_DEFAULTS = {"precision": "fp32", "compile": "none", "wire": "fp32", "output": "last_hidden_state"}


@dataclass(frozen=True)
class Settings:
    weights: str
    precision: str
    compile: str
    wire: str
    output: str
    most: int  # images a batch
    instances: int  # that share this device
    config: dict

    @classmethod
    def of(cls, config, device_type):
        """Raises RuntimeError with a sentence for what is unknown, or cannot be on this device."""
        parameters = {name: entry["string_value"] for name, entry in config["parameters"].items()}
        chosen = {name: parameters.get(name, default) for name, default in _DEFAULTS.items()}
        for name, value in chosen.items():
            if value not in _ALLOWED[name]:
                raise RuntimeError(f"{name} {value!r} is unknown: {', '.join(_ALLOWED[name])}")
        if device_type != "cuda":
            for name, value in (("precision", "tf32"), ("compile", "max-autotune")):
                if chosen[name] == value:
                    raise RuntimeError(f"{name} {value} needs a GPU")
        instances = sum(int(group.get("count", 1)) for group in config["instance_group"])
        most = max(1, int(config["max_batch_size"]))
        settings = cls(parameters["weights"], **chosen, most=most, instances=instances, config=config)
        settings._check_input()
        return settings

    @property
    def dtype(self):
        """Of pixels."""
        return WIRES[self.wire][2]

    def _check_input(self):
        entry, (datatype, axes, _) = self.config["input"][0], WIRES[self.wire]
        if (entry["data_type"], len(entry["dims"])) != (datatype, axes):
            raise RuntimeError(
                f"wire {self.wire} takes {datatype} of {axes} axes, "
                f"the configuration says {entry['data_type']} of {len(entry['dims'])}"
            )

    def check(self, vit):
        """Raises RuntimeError where the weights and the configured outputs do not fit."""
        if vit.pooler is None and "pooler_output" in OUTPUTS[self.output]:
            raise RuntimeError(
                f"weights {self.weights} have no pooler: set the parameter `output` to last_hidden_state"
            )
        found = {output["name"]: output["dims"] for output in self.config["output"]}
        if sorted(found) != sorted(OUTPUTS[self.output]):
            raise RuntimeError(
                f"output {self.output} needs the outputs {', '.join(OUTPUTS[self.output])}; "
                f"the configuration has {', '.join(found)}"
            )
        for name, dims in found.items():
            hidden = int(dims[-1])
            if hidden not in (-1, vit.hidden):
                right = [*map(int, dims[:-1]), vit.hidden]
                raise RuntimeError(
                    f"the weights have a hidden size of {vit.hidden}, the configuration says {hidden}: "
                    f"set dims of {name} to {right}"
                )
