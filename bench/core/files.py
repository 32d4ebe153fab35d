"""Write files atomically: a reader sees the whole old file or the whole new one, never a part.

The content is on the disk before the file gets its name, so that this holds after a power failure too.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.core.errors import RunFolderError

# The name of a file that is not whole yet: a point, the name it will get, and the number of its writer.
_PART = re.compile(r"\..+\.[0-9]+")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at `path`. Raises RunFolderError naming it where it cannot be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written ({error.strerror}): check its folder, its permissions and the free "
            "space, or name another place."
        ) from error
    finally:  # also after an interrupt; it is gone when it has got its name
        with suppress(OSError):
            part.unlink()


def remove_parts(folder: Path) -> None:
    """Remove what `write_bytes` left in `folder` when its process was killed. Nobody may be writing there."""
    for path in folder.glob(".*.*"):
        if _PART.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` by text in UTF-8. Raises RunFolderError as `write_bytes` does.

    Half a surrogate pair, which has no bytes in UTF-8, is written as \\udXXX: in JSON that is the same text.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, data: Any) -> None:
    """Replace the file at `path` by JSON, indented. Raises RunFolderError as `write_bytes` does."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
