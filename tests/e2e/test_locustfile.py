"""`locust -f locustfiles/vit.py` works by itself: no `bench` command, no part of a sweep."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core.cell import Protocol, ServerConfiguration
from bench.server.embedded import EmbeddedTriton
from tests.support.calibration import serve

LOCUSTFILE = Path(__file__).parents[2] / "locustfiles" / "vit.py"


def locust(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def delay(triton: EmbeddedTriton) -> list[str]:
    """Words that point Locust at the calibration model."""
    serve(triton, ServerConfiguration(model="delay"))
    return ["-H", triton.target.http_url, "--grpc-host", triton.target.grpc_address or "", "--model", "delay"]


def test_list_shows_a_user_of_each_protocol() -> None:
    listed = locust("--list")
    assert listed.returncode == 0
    users = {f"Triton{protocol.capitalize()}User" for protocol in Protocol}
    assert users <= set((listed.stdout + listed.stderr).split())


def test_the_arguments_are_locusts_own() -> None:
    """What the web form shows, and --help would, but that Locust 2.47 answers it before it reads the file."""
    look = "from locust import argument_parser as a; import runpy, sys; runpy.run_path(sys.argv[1]); "
    command = [sys.executable, "-c", f"{look} print(a.get_parser().format_help())", str(LOCUSTFILE)]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for flag in (
        *("--model", "--batch", "--protocol", "--grpc-host", "--image"),
        *("--header", "--ca", "--cert", "--key", "--insecure", "--proxy", "--max-answer"),
    ):
        assert flag in asked.stdout


@pytest.mark.parametrize(("words", "host"), [([], "127.0.0.1"), (["--web-host", "*"], "*")])
def test_the_web_ui_is_for_this_machine_unless_asked_otherwise(words: list[str], host: str) -> None:
    look = "from locust import argument_parser as a; import runpy, sys; runpy.run_path(sys.argv[1]); "
    command = [sys.executable, "-c", f"{look} print(a.parse_options(sys.argv[2:]).web_host)", str(LOCUSTFILE)]
    asked = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=True)
    assert asked.stdout.split()[-1] == host


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("words", "users"),
    [
        (["--protocol", "http"], {"HTTP"}),
        (["--protocol", "grpc"], {"GRPC"}),
        (["--protocol", "both", "--batch", "8"], {"HTTP", "GRPC"}),
        (["--protocol", "both", "--processes", "2"], {"HTTP", "GRPC"}),
    ],
)
def test_a_headless_run_ends_by_itself_without_failures(
    delay: list[str], words: list[str], users: set[str]
) -> None:
    ran = locust("--headless", "-u", "2", "-r", "2", "-t", "2s", *delay, *words)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert "Traceback" not in said
    found = re.findall(r"^(HTTP|GRPC) +delay batch \d+ +(\d+) +(\d+)\(", said, re.MULTILINE)
    final = {user: (int(requests), int(failures)) for user, requests, failures in found}
    assert set(final) == users
    assert all(requests > 0 and failures == 0 for requests, failures in final.values())


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--batch", "0"], "--batch 0"),
        (["--batch", "65"], "allowed: 1 to 64"),
        (["--image", "big"], "--image big"),
        (["--model", "resnet"], "resnet"),
        (["--grpc-host", "nowhere"], "give host:port"),
    ],
)
def test_wrong_use_ends_at_once_with_a_sentence(delay: list[str], words: list[str], says: str) -> None:
    ran = locust("--headless", "-u", "1", "-t", "10s", *delay, *words)
    assert ran.returncode != 0
    assert says in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_a_host_that_does_not_answer_ends_with_a_sentence(processes: list[str]) -> None:
    ran = locust("--headless", "-u", "1", "-t", "10s", "-H", "http://127.0.0.1:9", *processes)
    assert ran.returncode != 0
    assert "Nothing answers at http://127.0.0.1:9 (connection refused)" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
