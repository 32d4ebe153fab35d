"""The head of an HTTP/1.1 answer, parsed strictly: what could be read in two ways is a broken answer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from bench.protocols.gevent_socket import BrokenAnswer

_ONE_ERROR_BYTES = 500


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. `length` None: the body is chunked, or ends with the connection."""

    status: int
    length: int | None
    chunked: bool
    keep_alive: bool
    inference_header_length: int


_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")


def parse_head(data: bytes) -> Head:
    """`data` up to and without the empty line. Raises BrokenAnswer. Source: RFC 9112, sections 4-6, 9.3."""
    first, *lines = data.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise BrokenAnswer(f"no HTTP/1.1 answer: {first[:40]!r}")
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BrokenAnswer(f"a broken header line: {line[:40]!r}")
        fields.setdefault(field[1].lower(), []).append(field[2])
    code = int(status[2])
    encodings = _tokens(fields, b"transfer-encoding")
    if encodings not in ([], [b"chunked"]):
        raise BrokenAnswer(f"an unknown transfer encoding: {encodings!r}")
    if encodings and b"content-length" in fields:
        raise BrokenAnswer("both a content length and a transfer encoding")
    length = 0 if code < 200 or code in (204, 304) else _number(fields, b"content-length")
    connection = _tokens(fields, b"connection")
    return Head(
        status=code,
        length=length,
        chunked=bool(encodings) and length is None,
        keep_alive=b"close" not in connection and (status[1] == b"1" or b"keep-alive" in connection),
        inference_header_length=_number(fields, b"inference-header-content-length") or 0,
    )


def _tokens(fields: dict[bytes, list[bytes]], name: bytes) -> list[bytes]:
    return [token.strip().lower() for token in b",".join(fields.get(name, [])).split(b",") if token.strip()]


def _number(fields: dict[bytes, list[bytes]], name: bytes) -> int | None:
    values = fields.get(name, [])
    if not values:
        return None
    if len(values) > 1 or not values[0].isdigit() or len(values[0]) > 15:
        raise BrokenAnswer(f"a broken {name.decode()}")
    return int(values[0])


def error_message(status: int, body: bytes) -> str:
    """Triton's own message where the answer has one."""
    try:
        told = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        told = body[:_ONE_ERROR_BYTES].decode("utf-8", "replace").strip()
    return f"{told} (HTTP {status})" if told else f"HTTP {status}"
