"""Which weights the ViT gets, said out loud: a snapshot, a hub name, or random ones from a seed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import WrongUse

HUB_NAME = "google/vit-base-patch16-224-in21k"
HIDDEN = {"base": 768, "tiny": 192}
_SEED = 0


@dataclass(frozen=True, slots=True)
class Weights:
    """`parameter` goes into the model configuration; `origin` is one sentence for people."""

    parameter: str
    hidden: int  # -1: known only once the server has the weights
    origin: str
    is_random: bool


def resolve(choice: str, *, has_gpu: bool) -> Weights:
    """auto | base | tiny | a snapshot folder | a hub name. Touches no network.

    Raises WrongUse when a folder or name is not to be had.
    """
    if choice in HIDDEN:
        return _random(choice, f"asked for with --vit {choice}")
    if choice == "auto":
        return _automatic(has_gpu)
    folder = Path(choice).expanduser()
    snapshot = folder if folder.is_dir() else _cached(choice)
    if snapshot is None:
        if folder.is_absolute() or choice.startswith(".") or choice.count("/") != 1:
            raise WrongUse([f"--vit {choice}: no such folder; {_ALLOWED}"])
        # Not in the cache: the server downloads it, or says why it cannot.
        hidden = HIDDEN["base"] if choice == HUB_NAME else -1
        return Weights(choice, hidden, f"weights {choice}, to be downloaded by the server.", False)
    return Weights(str(snapshot.resolve()), _hidden_of(snapshot), f"weights from {choice}.", False)


_ALLOWED = "give auto, base, tiny, a folder with config.json and weights, or a Hugging Face name"


def _automatic(has_gpu: bool) -> Weights:
    snapshot = _cached(HUB_NAME)
    if snapshot is not None:
        return Weights(
            str(snapshot), _hidden_of(snapshot), f"weights of {HUB_NAME}, from the hf cache.", False
        )
    size, other = ("base", "tiny") if has_gpu else ("tiny", "base")
    where = "a GPU is here" if has_gpu else "no GPU is here"
    return _random(size, f"{HUB_NAME} is not in the hf cache and {where}; --vit {other} serves the other")


def _random(size: str, why: str) -> Weights:
    parameter = f"random:{size}:seed={_SEED}"
    return Weights(
        parameter, HIDDEN[size], f"ViT-{size} with random weights (seed {_SEED}): {why}.", is_random=True
    )


def _cached(name: str) -> Path | None:
    """The newest complete snapshot in the Hugging Face cache, found as huggingface_hub lays it out."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    snapshots = (hub / f"models--{name.replace('/', '--')}" / "snapshots").glob("*")
    complete = [s for s in snapshots if (s / "config.json").exists() and _has_weights(s)]
    return max(complete, key=lambda s: s.stat().st_mtime, default=None)


def _has_weights(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("model.safetensors", "pytorch_model.bin"))


def _hidden_of(folder: Path) -> int:
    try:
        return int(json.loads((folder / "config.json").read_text())["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WrongUse([f"--vit {folder}: has no config.json with a hidden_size; {_ALLOWED}"]) from error
