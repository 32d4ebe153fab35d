"""Files are replaced as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.core.errors import RunFolderError
from bench.core.files import write_json, write_text


def test_a_file_is_replaced_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"name": "münchen"})
    write_text(path, "x")
    assert path.read_text() == "x"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    taken = tmp_path / "folder"
    taken.mkdir()
    for path in (taken, tmp_path / "missing" / "a.txt"):
        with pytest.raises(RunFolderError, match=f"^{path} cannot be written \\(.*another place"):
            write_text(path, "x")
    assert list(tmp_path.iterdir()) == [taken]
