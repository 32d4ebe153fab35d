"""Triton's control side: is it there, what does it serve, load this, what did it count.

Plain blocking HTTP; requests under load never go through here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from bench.core.errors import ModelLoadFailed, TargetError, Unreachable
from bench.core.target import Target
from bench.core.trial import Counters
from bench.server.log_diagnosis import known_cause
from bench.server.reader import (
    Answer,
    Reader,
    read_config,
    read_index,
    read_metadata,
    read_object,
    read_states,
    read_statistics,
    succeeded,
)

T = TypeVar("T")

CONTROL_TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 600.0  # Loading a model may compile or download it.


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Triton's counters of one model at one moment; only differences mean anything."""

    at_ns: int
    stats: Mapping[str, Any]
    within_ns: int = field(default=0, kw_only=True)  # at_ns is right within so much

    def __sub__(self, earlier: Snapshot) -> Counters:
        """What was counted from `earlier` to here. A reload in between restarts counters at zero."""

        def counted(*path: str) -> int:
            return _difference(self.stats, earlier.stats, "inference_stats", *path)

        return Counters(
            inference_count=_difference(self.stats, earlier.stats, "inference_count"),
            execution_count=_difference(self.stats, earlier.stats, "execution_count"),
            success_count=counted("success", "count"),
            fail_count=counted("fail", "count"),
            success_ns=counted("success", "ns"),
            queue_ns=counted("queue", "ns"),
            compute_input_ns=counted("compute_input", "ns"),
            compute_infer_ns=counted("compute_infer", "ns"),
            compute_output_ns=counted("compute_output", "ns"),
            batches=_batch_differences(self.stats, earlier.stats),
            executing_ns=_executing_ns(self.stats) - _executing_ns(earlier.stats),
            uncertain_ns=2 * (self.within_ns + earlier.within_ns),
        )


class Triton:
    """One server's control API. Methods raise Unreachable when nothing answers."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._reader = Reader(target)

    def close(self) -> None:
        self._reader.close()

    def lost(self) -> str:
        """Why a server of ours is gone; "" while it is there. What became of somebody else's is not known."""
        return ""

    def revive(self) -> str:
        """Starts a server of ours again that is gone; why it was, or "" where there was nothing to do."""
        return ""

    def live(self) -> bool:
        return self._get_quietly("/v2/health/live")

    def ready(self) -> bool:
        return self._get_quietly("/v2/health/ready")

    def model_ready(self, model: str) -> bool:
        return self._get_quietly(f"/v2/models/{quote(model)}/ready")

    def server(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return self._read("/v2", read_object)

    def metadata(self, model: str) -> dict[str, Any]:
        """Names, datatypes and shapes of the model's inputs and outputs."""
        return self._read(f"/v2/models/{quote(model)}", read_metadata)

    def config(self, model: str) -> dict[str, Any]:
        """The configuration as the server completed it."""
        return self._read(f"/v2/models/{quote(model)}/config", read_config)

    def models(self) -> tuple[str, ...]:
        """Every model of the repository, loaded or not."""
        return read_index(*self._request("/v2/repository/index", "POST", {}))

    def load(self, model: str, config: Mapping[str, Any] | None = None) -> None:
        """Load or reload; `config` replaces the whole configuration of the model.

        Raises ModelLoadFailed with the server's reason.
        """
        body = {} if config is None else {"parameters": {"config": json.dumps(config)}}
        self._repository(model, "load", body)

    def unload(self, model: str) -> None:
        self._repository(model, "unload", {"parameters": {"unload_dependents": False}})

    def statistics(self, model: str) -> Snapshot:
        """The counters of all versions of the model, stamped halfway through the call."""
        before = time.monotonic_ns()
        answer, url = self._request(f"/v2/models/{quote(model)}/stats")
        half_ns = (time.monotonic_ns() - before) // 2
        return Snapshot(before + half_ns, read_statistics(answer, url), within_ns=half_ns)

    def metrics(self, timeout_s: float = CONTROL_TIMEOUT_S) -> str:
        """The Prometheus text, or "" when there is no metrics address or nothing answers there."""
        if self.target.metrics_url is None:
            return ""
        try:
            answer = self._reader.ask(self.target.metrics_url, timeout_s)
        except Unreachable:
            return ""
        return answer.body.decode("utf-8", "replace") if answer.ok else ""

    def wait_until_ready(self, model: str, timeout_s: float) -> None:
        """Raises ModelLoadFailed when the model is not ready in time."""
        deadline = time.monotonic() + timeout_s
        while not self.model_ready(model):
            if why := self.lost():
                raise Unreachable(why)
            if time.monotonic() > deadline:
                raise ModelLoadFailed(
                    f"Model {model!r} is not ready after {timeout_s:g} s: look at the server's log."
                )
            time.sleep(0.1)  # readiness has no event to wait for

    def wait_until_gone(self, model: str, timeout_s: float) -> None:
        """Until an unloaded model has ended. Raises ModelLoadFailed when it has not in time."""
        deadline = time.monotonic() + timeout_s
        while "UNLOADING" in self.states(model) or self.model_ready(model):
            if time.monotonic() > deadline:
                raise ModelLoadFailed(
                    f"Model {model!r} is not unloaded after {timeout_s:g} s: look at the server's log."
                )
            time.sleep(0.05)  # the end of a model has no event to wait for

    def states(self, model: str) -> set[str]:
        """Of the versions of the model: READY, UNLOADING, UNAVAILABLE..."""
        return read_states(*self._request("/v2/repository/index", "POST", {}), model)

    def allows_loading(self) -> bool:
        """Whether the server loads models on request: it was started in the explicit control mode.

        It is asked for a model that no repository has, so nothing changes.
        """
        try:
            self._request("/v2/repository/models/no-such-model-of-bench/load", "POST", {})
        except Unreachable:
            raise
        except TargetError as error:
            return "not allowed" not in str(error)
        return True

    def _repository(self, model: str, verb: str, body: dict[str, Any]) -> None:
        try:
            self._request(f"/v2/repository/models/{quote(model)}/{verb}", "POST", body, LOAD_TIMEOUT_S)
        except Unreachable:
            raise
        except TargetError as error:
            hint = (
                "Start that server with --model-control-mode=explicit, or leave out --instances."
                if "explicit" in str(error) or "not allowed" in str(error) or "polling" in str(error).lower()
                else "Look at the server's log, and at the configuration asked for."
            )
            cause = known_cause(str(error))
            said = cause or f"{str(error).rstrip('. ')}. {hint}"
            raise ModelLoadFailed(f"Model {model!r} did not {verb}: {said}") from error

    def _get_quietly(self, path: str) -> bool:
        try:
            return self._reader.ask(self.target.http_url + path, CONTROL_TIMEOUT_S).ok
        except Unreachable:
            return False

    def _read(self, path: str, read: Callable[[Answer, str], T]) -> T:
        return read(*self._request(path))

    def _request(
        self, path: str, method: str = "GET", body: Any = None, timeout_s: float = CONTROL_TIMEOUT_S
    ) -> tuple[Answer, str]:
        """The answer, and the address that it came from. Raises Unreachable, TargetError."""
        url = self.target.http_url + path
        return succeeded(self._reader.ask(url, timeout_s, method, body), url), url


def _difference(later: Mapping[str, Any], earlier: Mapping[str, Any], *path: str) -> int:
    return _at(later, path) - _at(earlier, path)


def _at(stats: Mapping[str, Any], path: tuple[str, ...]) -> int:
    value: Any = stats
    for name in path:
        value = value.get(name, {}) if isinstance(value, Mapping) else {}
    return int(value) if value != {} else 0


def _executing_ns(stats: Mapping[str, Any]) -> int:
    """Of all executions, each once, whatever the size of its batch."""
    steps = ("compute_input", "compute_infer", "compute_output")
    return sum(_at(entry, (step, "ns")) for entry in stats.get("batch_stats", ()) for step in steps)


def _batch_differences(later: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    before = {int(b["batch_size"]): b for b in earlier.get("batch_stats", ())}
    found: dict[int, tuple[int, int]] = {}
    for entry in later.get("batch_stats", ()):
        size = int(entry["batch_size"])
        old = before.get(size, {})
        count = _difference(entry, old, "compute_infer", "count")
        if count:
            found[size] = (count, _difference(entry, old, "compute_infer", "ns"))
    return found
