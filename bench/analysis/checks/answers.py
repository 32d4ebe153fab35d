"""Were requests answered, and rightly?"""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.failures import by_name, in_words
from bench.analysis.summary import TrialSummary
from bench.core import units
from bench.core.findings import Finding, Severity
from bench.core.samples import Outcome
from bench.core.trial import Trial


def nothing_measured(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if summary.requests == 0:
        message = next(iter(trial.errors), "")
        yield Finding(
            "nothing-measured",
            Severity.INVALID,
            "No request succeeded in the window.",
            f"The first error: {message}." if message else "No request ended inside it.",
            "Use a longer --duration, or look at the server's log.",
        )


def wrong_answers(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    wrong = int((trial.samples.outcome == Outcome.WRONG_ANSWER).sum())
    if wrong:
        about_answers = [message for message in trial.errors if "output" in message or "answer" in message]
        example = next(iter([*about_answers, *trial.errors]), "")
        yield Finding(
            "wrong-answers",
            Severity.INVALID,
            f"{units.plural(wrong, 'answer')} came back wrong{f': {example}' if example else ''}.",
            "The model is broken, or tensors are lost on the way (numpy >= 2 with Triton 2.51 does that).",
            "Compare `bench infer` with the model outside Triton; the speed of wrong answers means nothing.",
        )


def errors(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    told_elsewhere = (Outcome.WRONG_ANSWER, Outcome.CLIENT)
    kinds = {kind: count for kind, count in summary.failures.items() if kind not in told_elsewhere}
    failed = sum(kinds.values())
    if failed > 0 and summary.requests:
        example = next(iter(trial.errors), "unfinished when the trial ended")
        yield Finding(
            "errors",
            Severity.WARNING,
            f"{units.plural(failed, 'request')} failed ({units.percent(failed / summary.asked)}; "
            f"{in_words(by_name(kinds))}): {example}.",
            "The server refuses requests, or is too slow for --timeout.",
            "Requests without an answer in time count in percentiles with the time they were waited for; "
            "others that failed do not. An SLO counts both. See the server's log.",
        )


CHECKS = (nothing_measured, wrong_answers, errors)
