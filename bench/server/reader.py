"""The one reader of what a server says beside its answers: health, configuration, statistics, metrics.

Each call has a total time, however slowly bytes come, and a size; no redirect is followed, and nothing of the
environment (proxies, .netrc) has a say. What is read has the form that is expected, or it is a TargetError
with a sentence.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.core.errors import TargetError, Unreachable
from bench.core.samples import Outcome
from bench.core.target import Target, Way
from bench.protocols.http1 import HttpConnection, control_request

# Configurations and statistics have kilobytes, and a page of metrics of a hundred models a megabyte.
MOST_BYTES = 16 << 20
_MOST_AXES = 64
_MOST_MODELS = 100_000
_LARGEST = 2**63 - 1
_LARGEST_COUNTER = 2**64 - 1
# Characters of a wrong value that a message shows.
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for one call. `error`: Triton's own message, where the status is no success."""

    status: int
    body: bytes
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200


class Reader:
    """Asks one target; calls may come from any thread, one after another."""

    def __init__(self, target: Target) -> None:
        self._headers = target.headers
        self._way = Way(target.tls, target.proxy)
        self._connections: dict[tuple[str, float], HttpConnection] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def ask(self, url: str, timeout_s: float, method: str = "GET", body: Any = None) -> Answer:
        """Raises Unreachable without a whole answer in time."""
        content = None if body is None else json.dumps(body).encode()
        request = control_request(method, url, self._headers, content)
        with self._lock:
            connection = self._connection(url, timeout_s)
            reply = connection.exchange(request)
            if reply.outcome == Outcome.CONNECTION and reply.was_reused and method == "GET":
                reply = connection.exchange(request)  # the server may just have closed an idle connection
            if reply.outcome in (Outcome.OK, Outcome.SERVER_ERROR):
                return Answer(reply.status, bytes(reply.body), reply.error)
        where = _origin(url)
        raise Unreachable(
            f"Nothing answers at {where} ({reply.error.partition(': --max-answer')[0]}): "
            "is the server up, and is --url its HTTP address?"
        )

    def _connection(self, url: str, timeout_s: float) -> HttpConnection:
        key = (_origin(url), timeout_s)
        if key not in self._connections:
            self._connections[key] = HttpConnection(
                url, timeout_s=timeout_s, max_body_bytes=MOST_BYTES, way=self._way, blocking=True
            )
        return self._connections[key]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def succeeded(answer: Answer, url: str) -> Answer:
    """Raises TargetError with the server's reason, where it is no success."""
    if 300 <= answer.status < 400:
        raise TargetError(
            f"{url} answered with a redirect (HTTP {answer.status}), which is not followed, since headers "
            "may be secret: give the address that it leads to with --url."
        )
    if not answer.ok:
        path = urlsplit(url).path
        plain = answer.error in ("", f"HTTP {answer.status}")
        raise TargetError(f"{answer.status} at {path}" if plain else answer.error)
    return answer


def read_json(answer: Answer, url: str) -> Any:
    """Raises TargetError for what is no JSON, such as a gateway's page with status 200."""
    try:
        return json.loads(answer.body.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise TargetError(
            f"{url} answered with characters that are not UTF-8: is it a Triton? If it is, save the model's "
            "config.pbtxt as UTF-8."
        ) from None
    except (ValueError, RecursionError):
        raise TargetError(f"{url} answered no JSON: is it a Triton?") from None


def _refuse(name: str) -> Any:
    raise ValueError(name)


class _Unfit(Exception):
    """What in an answer has not the form that is expected."""


def read_object(answer: Answer, url: str) -> dict[str, Any]:
    data = read_json(answer, url)
    if not isinstance(data, dict):
        raise TargetError(f"{url} answered no JSON object: is it a Triton?")
    return data


def read_index(answer: Answer, url: str) -> tuple[str, ...]:
    """Names of a repository's models."""
    data = read_json(answer, url)
    with _checking(url):
        entries = _list(data, "the index", _MOST_MODELS)
        return tuple(sorted({_text(_object(entry, "a model").get("name"), "a name") for entry in entries}))


def read_states(answer: Answer, url: str, model: str) -> set[str]:
    """The states of a model's versions in a repository's index: READY, UNLOADING, UNAVAILABLE..."""
    data = read_json(answer, url)
    with _checking(url):
        entries = [_object(entry, "a model") for entry in _list(data, "the index", _MOST_MODELS)]
        return {_text(one.get("state", ""), "a state") for one in entries if one.get("name") == model}


def read_metadata(answer: Answer, url: str) -> dict[str, Any]:
    """Of a model: `name`, and `inputs` and `outputs`, each with name, datatype and shape."""
    data = read_object(answer, url)
    with _checking(url):
        _text(data.get("name"), "name")
        for side in ("inputs", "outputs"):
            for entry in _list(data.get(side), side):
                tensor = _object(entry, f"one of {side}")
                name = _text(tensor.get("name"), f"the name of one of {side}")
                _text(tensor.get("datatype"), f"the datatype of {name!r}")
                for axis in _list(tensor.get("shape"), f"the shape of {name!r}", _MOST_AXES):
                    _whole(axis, f"the shape of {name!r}", -1, _LARGEST)
    return data


def read_config(answer: Answer, url: str) -> dict[str, Any]:
    """Of a model, as Triton completed it. What the suite looks at has its form, or is left out."""
    data = read_object(answer, url)
    with _checking(url):
        _whole(data.get("max_batch_size", 0), "max_batch_size", 0, 2**31 - 1)
        for entry in _list(data.get("instance_group") or [], "instance_group"):
            _whole(_object(entry, "an instance_group").get("count", 1), "an instance_group's count", 0, 10**6)
        batching = data.get("dynamic_batching")
        if batching is not None:
            wanted = _object(batching, "dynamic_batching")
            _whole(wanted.get("max_queue_delay_microseconds", 0), "max_queue_delay_microseconds", 0, _LARGEST)
            for size in _list(wanted.get("preferred_batch_size", []), "preferred_batch_size"):
                _whole(size, "preferred_batch_size", 0, 2**31 - 1)
        for name, entry in _object(data.get("parameters") or {}, "parameters").items():
            _object(entry, f"parameter {str(name)[:_SHOWN]!r}")
        for side in ("input", "output"):
            for entry in _list(data.get(side) or [], side):
                tensor = _object(entry, f"one of {side}")
                name = _text(tensor.get("name"), f"the name of one of {side}")
                for axis in _list(tensor.get("dims") or [], f"dims of {name!r}", _MOST_AXES):
                    _whole(axis, f"dims of {name!r}", -1, _LARGEST)
    return data


_DURATIONS = (
    *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"),
    *("cache_hit", "cache_miss"),
)


def read_statistics(answer: Answer, url: str) -> dict[str, Any]:
    """Counters of a model's last version; {} before it has any."""
    data = read_object(answer, url)
    with _checking(url):
        versions = _list(data.get("model_stats") or [], "model_stats")
        counters = _object(versions[-1], "model_stats") if versions else {}
        for name in ("inference_count", "execution_count"):
            _counter(counters.get(name, 0), name)
        _durations(counters.get("inference_stats", {}), "inference_stats")
        for entry in _list(counters.get("batch_stats", []), "batch_stats"):
            batch = _object(entry, "batch_stats")
            _whole(batch.get("batch_size"), "a batch_size", 0, _LARGEST)
            _durations(batch, "batch_stats")
    return counters


def _durations(data: Any, what: str) -> None:
    for name in _DURATIONS:
        spent = _object(_object(data, what).get(name, {}), f"{what} {name}")
        for unit in ("count", "ns"):
            _counter(spent.get(unit, 0), f"{what} {name} {unit}")


@contextmanager
def _checking(url: str) -> Iterator[None]:
    """What is unfit becomes a TargetError."""
    try:
        yield
    except _Unfit as error:
        raise TargetError(
            f"{url} answered what no Triton does: {error}. Look at it with curl: is that a Triton, and does "
            "nothing between change its answers?"
        ) from None


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unfit(f"{what} is {_shown(value)}, and no object")
    return value


def _list(value: Any, what: str, most: int = 10_000) -> list[Any]:
    if not isinstance(value, list):
        raise _Unfit(f"{what} is {_shown(value)}, and no list")
    if len(value) > most:
        raise _Unfit(f"{what} has {len(value)} entries")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _Unfit(f"{what} is {_shown(value)}, and no text")
    return value


def _whole(value: Any, what: str, low: int, high: int) -> int:
    """Numbers of 64 bits may come as strings, as protobuf's JSON writes them."""
    number = value
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise _Unfit(f"{what} is {_shown(value)}, and no whole number from {low} to {high}")
    return number


def _counter(value: Any, what: str) -> int:
    return _whole(value, what, 0, _LARGEST_COUNTER)


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value) if value is not None else "missing"
    except (ValueError, RecursionError):
        text = "a number or nesting beyond measure"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
