"""Why a server did not start: recorded logs of real failures, each told in one sentence."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from bench.server.log_diagnosis import explain, is_port_taken, known_cause

LOGS = Path(__file__).parents[1] / "data" / "start_failures"  # recorded from Triton 2.51, tables left out

CAUSES = {
    "port_http": "A port is taken (127.0.0.1:60679): choose others with --http-port",
    "port_grpc": "A port is taken (127.0.0.1:",
    "port_metrics": "A port is taken (127.0.0.1:60671)",
    "no_module": "The model imports nonexistent_thing, which is not installed",
    "import_error": "The model's imports failed (cannot import name 'nothing_like_it' from 'json'",
    "raises": "The model failed to start: TritonModelException: the weights are not here.",
    "bug": "The model failed to start: KeyError: 'a'.",
    "syntax": "The model failed to start: SyntaxError: invalid syntax (model.py, line 1).",
    "exits": "The model's Python process (exits_0_0) died while it started",
    "bad_gpu": "The model's instance_group asks for a GPU and the server has none",
    "no_backend": "This tritonserver has no tensorrt backend",
    "no_config": "/models/no_config/config.pbtxt is missing",
    "bad_config": "/models/bad_config/config.pbtxt is missing, or no model configuration",
    "missing": "The model repository holds no missing",
    "no_repository": "The model repository /models cannot be read: check --repository.",
    "not_elf": "tritonserver cannot be run (/opt/tritonserver/notelf: Exec format error)",
    "no_libs": "tritonserver lacks the library libcudart-09529672.so.12.6.77",
    "wrong_libpython": "The Python backend's stub finds no libpython that matches",
    "stub_no_libpython": "The Python backend's stub finds no libpython that matches",
    "shm_full": "Shared memory is full: free or enlarge /dev/shm",
}


def log_of(name: str) -> str:
    return (LOGS / f"{name}.log").read_text()


@pytest.mark.parametrize("name", CAUSES)
def test_a_recorded_failure_becomes_one_sentence_with_its_cause(name: str) -> None:
    sentence = explain(log_of(name), 1)
    assert sentence.startswith(CAUSES[name])
    assert "\n" not in sentence
    assert "\\n" not in sentence
    assert sentence.endswith(".")
    assert "{" not in sentence


def test_every_recorded_failure_is_in_the_table() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(CAUSES)


def test_only_a_taken_port_is_worth_another_try() -> None:
    taken = {name for name in CAUSES if is_port_taken(log_of(name))}
    assert taken == {"port_http", "port_grpc", "port_metrics"}


def test_an_unknown_failure_is_told_by_the_log_s_last_error() -> None:
    log = 'E1123 01:02:03.4 1 server.cc:241] "CudaDriverHelper has not been initialized."\n'
    assert explain(log + "error: creating server: Internal - odd\n", 1) == (
        "tritonserver ended with code 1: error: creating server: Internal - odd."
    )
    assert explain(log, 1) == "tritonserver ended with code 1: its log names no error."
    assert known_cause(log) == ""


def test_a_signal_is_the_cause_whatever_was_logged_before() -> None:
    assert "SIGKILL" in explain(log_of("no_module"), 128 + signal.SIGKILL)
