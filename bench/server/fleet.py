"""Several Tritons behind one service, seen as one: loaded, verified and counted on every pod.

A service's address reaches one pod of several, whichever it likes, so control calls never go there:
they go to each pod by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bench.core.errors import ModelLoadFailed, TargetError
from bench.core.target import Target
from bench.core.trial import Counters, total
from bench.server.control import CONTROL_TIMEOUT_S, Snapshot, Triton

T = TypeVar("T")


def control_of(target: Target) -> Triton:
    """The control side of a target: of the server itself, or of every pod behind its address."""
    return Fleet(target) if target.is_service else Triton(target)


@dataclass(frozen=True, slots=True)
class FleetSnapshot(Snapshot):
    """Each pod's counters at about one moment; `at_ns` is the mean of the pods' own."""

    pods: Mapping[str, Snapshot]

    def __sub__(self, earlier: Snapshot) -> Counters:
        """Summed over pods, and each pod's own beside the sum.

        A pod that was not there before has counted all it has in between.
        """
        before = earlier.pods if isinstance(earlier, FleetSnapshot) else {}
        apart = {name: now - before.get(name, Snapshot(0, {})) for name, now in self.pods.items()}
        return replace(total(apart.values()), pods=apart)


class Fleet(Triton):
    """One control API for all pods of `target`: true when it is true of each, loaded when each has loaded.

    Errors name the pod. What is read (metadata, configuration) is the first pod's; a configuration
    only where all pods agree.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        others = target.over_grpc.pods if target.over_grpc else ()
        self._pods = tuple(Triton(pod) for pod in dict.fromkeys((*target.pods, *others)))
        self._threads = ThreadPoolExecutor(max(1, len(self._pods)), thread_name_prefix="bench-pod")

    def close(self) -> None:
        self._threads.shutdown()
        for pod in self._pods:
            pod.close()
        super().close()

    def live(self) -> bool:
        return all(self._each(Triton.live).values())

    def ready(self) -> bool:
        return all(self._each(Triton.ready).values())

    def model_ready(self, model: str) -> bool:
        return all(self._each(lambda pod: pod.model_ready(model)).values())

    def server(self) -> dict[str, Any]:
        return self._first(Triton.server)

    def metadata(self, model: str) -> dict[str, Any]:
        return self._first(lambda pod: pod.metadata(model))

    def models(self) -> tuple[str, ...]:
        return self._first(Triton.models)

    def config(self, model: str) -> dict[str, Any]:
        """Raises ModelLoadFailed where two pods serve the model differently."""
        served = self._each(lambda pod: pod.config(model))
        name, first = next(iter(served.items()))
        for other, config in served.items():
            differing = [k for k in sorted({*first, *config}) if first.get(k) != config.get(k)]
            if differing:
                raise ModelLoadFailed(
                    f"Pods {name} and {other} serve model {model!r} differently ({', '.join(differing)}): "
                    "restart them, so that all start from the same file."
                )
        return first

    def load(self, model: str, config: Mapping[str, Any] | None = None) -> None:
        """On every pod at once."""
        self._each(lambda pod: pod.load(model, config))

    def unload(self, model: str) -> None:
        self._each(lambda pod: pod.unload(model))

    def states(self, model: str) -> set[str]:
        return {state for found in self._each(lambda pod: pod.states(model)).values() for state in found}

    def allows_loading(self) -> bool:
        return all(self._each(Triton.allows_loading).values())

    def statistics(self, model: str) -> FleetSnapshot:
        pods = self._each(lambda pod: pod.statistics(model))
        return FleetSnapshot(sum(one.at_ns for one in pods.values()) // len(pods), {}, pods)

    def metrics(self, timeout_s: float = CONTROL_TIMEOUT_S) -> str:
        """Of all pods, one after the other."""
        return "\n".join(text for text in self._each(lambda pod: pod.metrics(timeout_s)).values() if text)

    def _first(self, ask: Callable[[Triton], T]) -> T:
        return _asked(self._pods[0], ask)

    def _each(self, ask: Callable[[Triton], T]) -> dict[str, T]:
        """The answers of all pods, by name. All have answered, or failed, when this returns or raises."""
        asked = [(pod.target.name, self._threads.submit(_asked, pod, ask)) for pod in self._pods]
        failed = [error for _, answer in asked if (error := answer.exception()) is not None]
        if failed:
            raise failed[0]
        return {name: answer.result() for name, answer in asked}


def _asked(pod: Triton, ask: Callable[[Triton], T]) -> T:
    try:
        return ask(pod)
    except TargetError as error:
        raise type(error)(f"Pod {pod.target.name}: {error}") from error
