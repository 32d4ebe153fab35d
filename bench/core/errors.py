"""What can go wrong, and the exit code each kind ends with.

    BenchError                4
    ├── WrongUse              2   mistakes in what was asked; all of them at once
    ├── TargetError           4   the server under test
    │   ├── Unreachable           cannot connect
    │   ├── ServerStartFailed     an embedded tritonserver did not come up
    │   ├── ServerDied            an embedded tritonserver ended by itself; it has been started again
    │   ├── ModelLoadFailed       the model, or the configuration asked for, did not load
    │   ├── ClusterError          an API server that does not answer, or refuses
    │   └── DeployFailed          what was applied never got ready
    ├── ToolError             4   Locust, perf_analyzer, or what they need
    ├── DeadlineReached       3   the time for all of it is over, and something is not measured
    └── RunFolderError        2   a run folder that cannot be written or read

A failed request is data (an outcome in `samples`), and a missed gate (exit code 1) or a result that does not
decide (3) is a result: none of them is one of these. Each message is a full sentence and ends with what to do
next.
"""

from collections.abc import Iterable

EXIT_OK = 0
EXIT_MISSED = 1
EXIT_WRONG_USE = 2
EXIT_INCONCLUSIVE = 3
EXIT_FAILED = 4
EXIT_INTERRUPTED = 130


def worst(codes: Iterable[int]) -> int:
    """The exit code of several judgements: a regression says more than something undecided."""
    judgements = set(codes)
    return next((code for code in (EXIT_MISSED, EXIT_INCONCLUSIVE) if code in judgements), EXIT_OK)


class BenchError(Exception):
    """An experiment that failed."""

    exit_code = EXIT_FAILED


class WrongUse(BenchError):
    """What was asked cannot be done; carries every mistake, in the order of the flags."""

    exit_code = EXIT_WRONG_USE

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class TargetError(BenchError):
    """The Triton under test."""


class Unreachable(TargetError):
    """Nothing answers at the address."""


class ServerStartFailed(TargetError):
    """An embedded tritonserver did not come up."""


class ServerDied(TargetError):
    """An embedded tritonserver ended by itself. Whoever raises this has started it again."""


class ModelLoadFailed(TargetError):
    """The model, or the configuration asked for, did not load."""


class ClusterError(TargetError):
    """An API server that does not answer, or refuses; `status` is HTTP's, 0 without an answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


class DeployFailed(TargetError):
    """What was applied to a cluster never got ready."""


class ToolError(BenchError):
    """Locust, perf_analyzer, or something they need."""


class DeadlineReached(BenchError):
    """The time that everything may take is over, and something is not measured yet."""

    exit_code = EXIT_INCONCLUSIVE


class RunFolderError(BenchError):
    """A run folder that cannot be written or read."""

    exit_code = EXIT_WRONG_USE
