"""Write files atomically: a reader sees the whole old file or the whole new one, never a part."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.core.errors import RunFolderError


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at `path`. Raises RunFolderError naming it where it cannot be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise RunFolderError(
            f"{path} cannot be written ({error.strerror}): check its folder, its permissions and the free "
            "space, or name another place."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` by text in UTF-8. Raises RunFolderError as `write_bytes` does.

    Half a surrogate pair, which has no bytes in UTF-8, is written as \\udXXX: in JSON that is the same text.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, data: Any) -> None:
    """Replace the file at `path` by JSON, indented. Raises RunFolderError as `write_bytes` does."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
