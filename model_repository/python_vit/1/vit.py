"""A ViT encoder with the weights, and the values, of transformers' ViTModel; torch is all it imports.

Importing transformers takes seconds per instance and load; this takes none, and its arithmetic is the
same: one fused projection for query, key and value, and the patch convolution written as a product, so
that images stay in the channels-last layout they arrive in.
"""

import hashlib
import json
import re
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

PATCH = 16
IMAGE = 224
SIZES = {
    "base": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
    },
    "tiny": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "num_hidden_layers": 12},
}


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, eps = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
        self.heads = config["num_attention_heads"]
        self.norm_before = nn.LayerNorm(hidden, eps)
        self.norm_after = nn.LayerNorm(hidden, eps)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.projection = nn.Linear(hidden, hidden)
        self.up = nn.Linear(hidden, config["intermediate_size"])
        self.down = nn.Linear(config["intermediate_size"], hidden)

    def forward(self, x):
        x = x + self.projection(self.attend(self.norm_before(x)))
        return x + self.down(functional.gelu(self.up(self.norm_after(x))))

    def attend(self, x):
        n, tokens, hidden = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.heads, hidden // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).reshape(n, tokens, hidden)


class Vit(nn.Module):
    """[n, 224, 224, 3] normalised, channels last -> [n, 197, hidden]."""

    def __init__(self, config, *, has_pooler=False):
        super().__init__()
        hidden = config["hidden_size"]
        tokens = (IMAGE // PATCH) ** 2 + 1
        self.hidden = hidden
        self.patch = nn.Linear(PATCH * PATCH * 3, hidden)
        self.class_token = nn.Parameter(torch.empty(1, 1, hidden))
        self.positions = nn.Parameter(torch.empty(1, tokens, hidden))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = nn.LayerNorm(hidden, config.get("layer_norm_eps", 1e-12))
        self.pooler = nn.Linear(hidden, hidden) if has_pooler else None

    def forward(self, images):
        n, side = images.shape[0], IMAGE // PATCH
        patches = images.view(n, side, PATCH, side, PATCH, 3).permute(0, 1, 3, 2, 4, 5)
        x = self.patch(patches.reshape(n, side * side, -1))
        x = torch.cat([self.class_token.expand(n, -1, -1), x], dim=1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def pooled(self, states):
        """[n, 197, hidden] -> [n, hidden], of the class token. Source: transformers' ViTPooler."""
        return torch.tanh(self.pooler(states[:, 0]))


def build(weights):
    """The network for a `weights` parameter, in fp32 on the CPU.

    Raises RuntimeError with a sentence when the weights are not to be had.
    """
    config, state = random_weights(weights) if weights.startswith("random:") else snapshot(weights)
    with torch.device("meta"):
        vit = Vit(config, has_pooler="pooler.dense.weight" in state)
    try:
        vit.load_state_dict(translate(state, config["num_hidden_layers"]), assign=True)
    except KeyError as error:
        raise RuntimeError(f"weights {weights}: have no {error}, so they are not those of a ViT") from error
    return vit.eval().requires_grad_(False)


def random_weights(weights):
    """`random:SIZE:seed=N` -> configuration and state, with the names of transformers' ViTModel.

    Each tensor has its own generator, seeded by its name too: values do not depend on any order.
    """
    asked = re.fullmatch(r"random:(\w+):seed=(\d+)", weights)
    if asked is None or asked[1] not in SIZES:
        raise RuntimeError(f"weights {weights}: give random:SIZE:seed=N, SIZE one of {', '.join(SIZES)}")
    config, seed = SIZES[asked[1]], int(asked[2])
    return config, {name: _random(name, shape, seed) for name, shape in shapes(config).items()}


def _random(name, shape, seed):
    if name.endswith("bias"):
        return torch.zeros(shape)
    if "layernorm" in name:
        return torch.ones(shape)
    named = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(named)
    return torch.empty(shape).normal_(0, 0.02, generator=generator)


def shapes(config):
    """name -> shape of every tensor of transformers' ViTModel."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    found = {
        "embeddings.cls_token": (1, 1, hidden),
        "embeddings.position_embeddings": (1, (IMAGE // PATCH) ** 2 + 1, hidden),
        "embeddings.patch_embeddings.projection.weight": (hidden, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (hidden,),
        "layernorm.weight": (hidden,),
        "layernorm.bias": (hidden,),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
    }
    for i in range(config["num_hidden_layers"]):
        for name, (out, into) in {
            "attention.attention.query": (hidden, hidden),
            "attention.attention.key": (hidden, hidden),
            "attention.attention.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (wide, hidden),
            "output.dense": (hidden, wide),
        }.items():
            found[f"encoder.layer.{i}.{name}.weight"] = (out, into)
            found[f"encoder.layer.{i}.{name}.bias"] = (out,)
        for name in ("layernorm_before", "layernorm_after"):
            found[f"encoder.layer.{i}.{name}.weight"] = (hidden,)
            found[f"encoder.layer.{i}.{name}.bias"] = (hidden,)
    return found


def snapshot(weights):
    """Configuration and state of a snapshot folder, or of a Hugging Face name (its cache is honoured)."""
    folder = Path(weights)
    if not folder.is_dir():
        folder = _download(weights)
    config = _settings(weights, folder)
    if (folder / "model.safetensors").exists():
        from safetensors.torch import load_file

        state = load_file(folder / "model.safetensors")
    elif (folder / "pytorch_model.bin").exists():
        state = torch.load(folder / "pytorch_model.bin", weights_only=True, map_location="cpu")
    else:
        raise RuntimeError(f"weights {weights}: {folder} has neither model.safetensors nor pytorch_model.bin")
    return config, {name.removeprefix("vit."): tensor.float() for name, tensor in state.items()}


def _settings(weights, folder):
    """config.json. What this network or `preprocess` would do otherwise than transformers is refused."""
    config, processor = ({}, {})
    if (folder / "config.json").exists():
        config = json.loads((folder / "config.json").read_text())
    if (folder / "preprocessor_config.json").exists():
        processor = json.loads((folder / "preprocessor_config.json").read_text())
    half, whole = [0.5] * 3, {"height": IMAGE, "width": IMAGE}
    for found, name, allowed in (
        (config, "model_type", ("vit",)),
        (config, "image_size", (None, IMAGE)),
        (config, "patch_size", (None, PATCH)),
        (config, "hidden_act", (None, "gelu")),
        (config, "qkv_bias", (None, True)),
        (processor, "image_mean", (None, half)),
        (processor, "image_std", (None, half)),
        (processor, "resample", (None, 2)),
        (processor, "size", (None, IMAGE, whole)),
    ):
        if found.get(name) not in allowed:
            raise RuntimeError(f"weights {weights}: {name} is {found.get(name)}, served is {allowed[-1]}")
    return config


def _download(name):
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*config.json", "model.safetensors"]))
    except Exception as error:  # whatever the hub's client raises, the next step is the same
        raise RuntimeError(
            f"weights {name} are no folder and cannot be downloaded ({type(error).__name__}): "
            "set the parameter `weights` to a snapshot folder, or to random:base:seed=0"
        ) from error


def translate(state, layers):
    """transformers' names -> ours."""
    ours = {
        "class_token": state["embeddings.cls_token"],
        "positions": state["embeddings.position_embeddings"],
        # [hidden, 3, 16, 16] over channels-first patches -> [hidden, 16 * 16 * 3] over channels-last ones
        "patch.weight": state["embeddings.patch_embeddings.projection.weight"]
        .permute(0, 2, 3, 1)
        .flatten(1)
        .contiguous(),
        "patch.bias": state["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": state["layernorm.weight"],
        "norm.bias": state["layernorm.bias"],
    }
    if "pooler.dense.weight" in state:
        ours |= {f"pooler.{kind}": state[f"pooler.dense.{kind}"] for kind in ("weight", "bias")}
    names = {
        "projection": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm_before": "layernorm_before",
        "norm_after": "layernorm_after",
    }
    for i in range(layers):
        for kind in ("weight", "bias"):
            for our, their in names.items():
                ours[f"layers.{i}.{our}.{kind}"] = state[f"encoder.layer.{i}.{their}.{kind}"]
            parts = [
                state[f"encoder.layer.{i}.attention.attention.{p}.{kind}"] for p in ("query", "key", "value")
            ]
            ours[f"layers.{i}.qkv.{kind}"] = torch.cat(parts)
    return ours
