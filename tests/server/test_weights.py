"""Which weights are chosen, and what is said about them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core.errors import WrongUse
from bench.server.weights import HUB_NAME, Weights, resolve


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "huggingface" / "hub"


def snapshot(folder: Path, hidden: int = 768, *, complete: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": hidden}))
    if complete:
        (folder / "model.safetensors").touch()
    return folder


def cached(hub: Path, name: str = HUB_NAME, revision: str = "abc") -> Path:
    return hub / f"models--{name.replace('/', '--')}" / "snapshots" / revision


@pytest.mark.parametrize(
    ("choice", "has_gpu", "parameter", "hidden"),
    [
        ("tiny", False, "random:tiny:seed=0", 192),
        ("tiny", True, "random:tiny:seed=0", 192),
        ("base", False, "random:base:seed=0", 768),
        ("auto", False, "random:tiny:seed=0", 192),
        ("auto", True, "random:base:seed=0", 768),
    ],
)
def test_random_weights_where_nothing_else_is_had(
    choice: str, has_gpu: bool, parameter: str, hidden: int
) -> None:
    found = resolve(choice, has_gpu=has_gpu)
    assert (found.parameter, found.hidden, found.is_random) == (parameter, hidden, True)
    assert "random weights (seed 0)" in found.origin


@pytest.mark.parametrize(("has_gpu", "other"), [(False, "--vit base"), (True, "--vit tiny")])
def test_what_auto_chose_is_said_with_the_flag_for_the_other(has_gpu: bool, other: str) -> None:
    assert other in resolve("auto", has_gpu=has_gpu).origin


def test_auto_takes_the_real_weights_when_the_cache_has_them(hub: Path) -> None:
    folder = snapshot(cached(hub))
    assert resolve("auto", has_gpu=False) == Weights(
        str(folder), 768, f"weights of {HUB_NAME}, from the hf cache.", is_random=False
    )


def test_a_download_that_was_broken_off_does_not_count(hub: Path) -> None:
    snapshot(cached(hub), complete=False)
    assert resolve("auto", has_gpu=True).is_random


def test_the_newest_snapshot_counts(hub: Path) -> None:
    old, new = snapshot(cached(hub, revision="new")), snapshot(cached(hub, revision="old"))
    os.utime(old, (1, 1))
    assert resolve("auto", has_gpu=False).parameter == str(new)


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_the_cache_is_where_hugging_face_s_variables_say(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    hub = tmp_path / "own" if variable == "HF_HUB_CACHE" else tmp_path / "own" / "hub"
    folder = snapshot(cached(hub))
    assert resolve("auto", has_gpu=False).parameter == str(folder)


def test_a_snapshot_folder_serves_its_own_hidden_size(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "mine", hidden=384)
    found = resolve(str(folder), has_gpu=False)
    assert (found.parameter, found.hidden, found.is_random) == (str(folder), 384, False)


def test_a_hub_name_in_the_cache_is_served_from_there(hub: Path) -> None:
    folder = snapshot(cached(hub, "facebook/vit-small"), hidden=384)
    assert resolve("facebook/vit-small", has_gpu=False).parameter == str(folder)


@pytest.mark.parametrize(("name", "hidden"), [(HUB_NAME, 768), ("google/vit-large", -1)])
def test_other_hub_names_are_left_to_the_server(name: str, hidden: int) -> None:
    found = resolve(name, has_gpu=False)
    assert (found.parameter, found.hidden) == (name, hidden)
    assert "downloaded by the server" in found.origin


@pytest.mark.parametrize("choice", ["/no/such/folder", "./none", "huge", "a/b/c", ""])
def test_what_is_neither_folder_nor_name_is_wrong_use(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/dev")
    with pytest.raises(WrongUse, match="give auto, base, tiny, a folder") as caught:
        resolve(choice, has_gpu=False)
    assert len(caught.value.mistakes) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"hidden_size": "x"}', '{"hidden_size": null}'])
def test_a_folder_that_is_no_snapshot_is_wrong_use(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WrongUse, match="hidden_size"):
        resolve(str(tmp_path), has_gpu=False)


def test_choosing_needs_neither_torch_nor_the_network() -> None:
    program = (
        "import sys, socket\n"
        "def refuse(*_, **__): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from bench.server.weights import resolve\n"
        "resolve('auto', has_gpu=False); resolve('google/vit-base-patch16-224-in21k', has_gpu=True)\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
