"""What README and docs say is true of the code: commands that are understood, findings as they are named."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bench.cli import main as cli
from bench.cli.option_tables import renewed

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FINDING = re.compile(r'"([a-z]+(?:-[a-z]+)*)",\s*(?:severity=)?Severity\.(INVALID|WARNING|NOTE)\b')


def commands() -> Iterator[tuple[str, str]]:
    """Page and command, of every indented line that begins with `bench`."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^(?: {4}|\t)(bench .*)$", text, re.MULTILINE):
            yield page.name, line


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_a_command_of_the_docs_is_understood(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli.bench
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(page, words)  # raises what a wrong flag raises


def test_findings_are_listed_under_the_severity_they_have() -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("## Findings\n")
    paragraphs = rest.partition("\n## ")[0].strip().split("\n\n")
    listed = {p.split()[0].strip(",:"): set(re.findall("`([a-z-]+)`", p)) for p in paragraphs}
    found: dict[str, set[str]] = {}
    for module in sorted((ROOT / "bench").rglob("*.py")):
        for code, severity in FINDING.findall(module.read_text(encoding="utf-8")):
            found.setdefault(severity, set()).add(code)
    assert listed == found


def test_the_tables_of_options_are_those_of_the_table() -> None:
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert renewed(page) == page, "renew it: python -m bench.cli.option_tables docs/options.md"


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:bench|docs)/[\w./]+)`", ARCHITECTURE))))
def test_what_the_architecture_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_room_is_in_the_architecture() -> None:
    rooms = {path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")}
    assert len(rooms) == 10
    assert {room for room in rooms if f"| `{room}` |" not in ARCHITECTURE} == set()
