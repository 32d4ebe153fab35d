"""Flags become a spec, or a list of mistakes: never an exception, never only the first."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli.commands import SWEEP
from bench.cli.spec import sweep_spec
from bench.cli.values import Values
from bench.cli.verbs.sweep import checked, request_of
from bench.core.cell import Arrival, Engine, Protocol, SharedMemory
from bench.core.errors import WrongUse
from bench.core.mistakes import Mistakes
from bench.core.options import Option
from bench.core.spec import SweepSpec
from bench.experiments.preconditions import check_against, check_open_files, check_parameters
from bench.experiments.run_setup import Output
from tests.support.command import values_of


def asked(*words: str) -> tuple[SweepSpec, list[str]]:
    """What `bench sweep WORDS` asks for, and the mistakes in it."""
    values = values_of("sweep", *words)
    return sweep_spec(values), values.mistakes.mistakes


def read(*words: str) -> SweepSpec:
    spec, wrong = asked(*words)
    assert wrong == []
    return spec


def mistakes(*words: str) -> list[str]:
    return asked(*words)[1]


def test_without_flags_a_closed_loop_of_four_users_is_measured_three_times() -> None:
    spec = read()
    assert (spec.model, spec.batches, spec.concurrencies) == ("python_vit", (1, 8, 32), (4,))
    assert (spec.instances, spec.max_batches, spec.queue_delays_us) == ((None,), (None,), (None,))
    assert (spec.rates_per_s, spec.repeats, spec.processes) == ((), 3, 0)
    assert (spec.protocols, spec.engines) == ((Protocol.HTTP,), (Engine.LOCUST,))


@pytest.mark.parametrize(
    ("words", "attribute", "value"),
    [
        (["--batch", "1, 8"], "batches", (1, 8)),
        (["--instances", "1,2"], "instances", (1, 2)),
        (["--max-batch", "8"], "max_batches", (8,)),
        (["--max-queue-delay", "off,0,1ms"], "queue_delays_us", (-1, 0, 1000)),
        (["--concurrency", "1,4,16"], "concurrencies", (1, 4, 16)),
        (["--rate", "50/s,90/min"], "rates_per_s", (50.0, 1.5)),
        (["--rate", "50/s"], "concurrencies", ()),
        (["--rate", "50/s", "--concurrency", "2"], "concurrencies", (2,)),
        (["--arrival", "constant"], "arrival", Arrival.CONSTANT),
        (["--protocol", "http,grpc"], "protocols", (Protocol.HTTP, Protocol.GRPC)),
        (["--protocol", "both"], "protocols", (Protocol.HTTP, Protocol.GRPC)),
        (["--engine", "both"], "engines", (Engine.LOCUST, Engine.PERF_ANALYZER)),
        (["--shared-memory", "system"], "shared_memory", (SharedMemory.SYSTEM,)),
        (["--duration", "500ms"], "duration_s", 0.5),
        (["--duration", "auto"], "auto_duration", True),
        (["--warmup", "0"], "warmup_s", 0.0),
        (["--quick"], "repeats", 1),
        (["--repeats", "7"], "repeats", 7),
        (["--image", "480x640"], "image_width", 640),
        (["--check", "2%"], "check_fraction", 0.02),
        (["--check", "0"], "check_fraction", 0.0),
        (["--processes", "2"], "processes", 2),
        (["--parameter", "precision=fp32,bf16"], "parameters", (("precision", ("fp32", "bf16")),)),
        (["--scenario", "single-stream"], "concurrencies", (1,)),
        (["--scenario", "single-stream"], "batches", (1,)),
        (["--scenario", "multi-stream"], "batches", (8,)),
        (["--scenario", "multi-stream", "--batch", "4"], "batches", (4,)),
        (["--scenario", "server", "--rate", "5/s"], "rates_per_s", (5.0,)),
        (["--scenario", "offline"], "batches", (1, 8, 32)),
    ],
)
def test_each_flag_means_what_it_says(words: list[str], attribute: str, value: object) -> None:
    assert getattr(read(*words), attribute) == value


@pytest.mark.parametrize(
    "words",
    [
        ["--batch", "0"],
        ["--batch", "8,8"],
        ["--batch", "1,x"],
        ["--batch", ""],
        ["--batch", "99999"],
        ["--instances", "-1"],
        ["--instances", "0"],
        ["--max-batch", "0"],
        ["--max-queue-delay", "soon"],
        ["--max-queue-delay", "1ms,1000us"],
        ["--concurrency", "0"],
        ["--rate", "0/s"],
        ["--rate", "5/h"],
        ["--rate", "nan"],
        ["--arrival", "uniform"],
        ["--arrival", "poisson,constant"],
        ["--protocol", "rest"],
        ["--protocol", "http,http"],
        ["--engine", "wrk"],
        ["--shared-memory", "both"],
        ["--duration", "0s"],
        ["--duration", "5"],
        ["--warmup", "-1s"],
        ["--repeats", "0"],
        ["--repeats", "many"],
        ["--repeats", "1,2"],
        ["--seed", "x"],
        ["--seed", "-1"],
        ["--image", "224"],
        ["--image", "0x224"],
        ["--image", "²x3"],
        ["--check", "200%"],
        ["--check", "often"],
        ["--check", "nan"],
        ["--timeout", "0"],
        ["--processes", "0"],
        ["--processes", "all"],
        ["--parameter", "precision"],
        ["--parameter", "=fp32"],
        ["--parameter", "a=1,1"],
        ["--scenario", "burst"],
    ],
)
def test_a_mistake_names_the_flag_what_was_typed_and_what_is_allowed(words: list[str]) -> None:
    (said,) = mistakes(*words)
    flag, text = words
    named = f"{f'{flag} {text}'.rstrip()}:"
    assert said.startswith(named)
    allowed = said.removeprefix(named)
    assert any(word in allowed for word in ("give", "allowed", "must"))
    assert "literal" not in allowed, "a sentence of Python's own helps nobody"
    assert "convert" not in allowed


def test_all_mistakes_come_at_once_in_the_order_of_the_flags() -> None:
    said = mistakes(
        "--check", "x", "--batch", "0", "--protocol", "rest", "--repeats", "0", "--instances", "-1"
    )
    assert [line.split()[0] for line in said] == [
        "--batch",
        "--instances",
        "--protocol",
        "--repeats",
        "--check",
    ]
    flags = Mistakes(list(said))
    with pytest.raises(WrongUse) as caught:
        flags.check()
    assert caught.value.mistakes == tuple(said)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--batch", "1,8", "--confirm", "--repeats", "2"), "needs --repeats 3"),
        (("--batch", "1", "--confirm"), "there is one cell"),
        (("--batch", "1,8", "--confirm", "--quick"), "goes without --quick"),
    ],
)
def test_fresh_trials_that_cannot_be_made_are_a_mistake(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(WrongUse, match=says):
        checked(values_of("sweep", *words))


def test_fresh_trials_can_be_asked_for_and_left_out() -> None:
    for words, asked_for in (((), None), (("--confirm",), True), (("--no-confirm",), False)):
        values = values_of("sweep", *words)
        spec, output = sweep_spec(values), Output(Path("out"))
        assert request_of(values, spec, output).confirm is asked_for


def test_quick_goes_without_repeats() -> None:
    (said,) = mistakes("--quick", "--repeats", "5")
    assert said.startswith("--quick")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--scenario", "offline", "--concurrency", "4"], "leave out"),
        (["--scenario", "single-stream", "--rate", "4/s"], "leave out"),
        (["--scenario", "server"], "needs --rate"),
        (["--shared-memory", "cuda"], "only --engine perf_analyzer"),
    ],
)
def test_flags_that_contradict_each_other_are_a_mistake(words: list[str], says: str) -> None:
    (said,) = mistakes(*words)
    assert said.startswith(" ".join(words[:2]))
    assert says in said


def test_one_parameter_in_two_flags_is_a_mistake() -> None:
    (said,) = mistakes("--parameter", "a=1", "--parameter", "a=2")
    assert "twice" in said


TEXTS = [option for option in SWEEP.options if not option.is_switch]


@given(
    option=st.sampled_from(TEXTS),
    text=st.text(max_size=12) | st.text("0123456789,./smx%-²٣=:>", max_size=8),
)
@settings(max_examples=600, deadline=None)
def test_whatever_is_typed_is_read_or_named_as_a_mistake(option: Option, text: str) -> None:
    values = Values.of(SWEEP.options, {option.name: (text,) if option.multiple else text})
    sweep_spec(values)
    known = [other.long for other in SWEEP.options]
    assert all(said.startswith(tuple(f"{flag}{end}" for flag in known for end in " :"))
               for said in values.mistakes.mistakes)  # fmt: skip


@given(st.lists(st.integers(1, 4096), min_size=1, max_size=6, unique=True))
def test_a_list_is_read_back_as_written(batches: list[int]) -> None:
    assert read("--batch", ",".join(map(str, batches))).batches == tuple(batches)


@pytest.mark.parametrize(
    ("words", "known", "limit", "named"),
    [
        (["--model", "resnet"], ("delay", "python_vit"), 64, ["--model resnet", "delay, python_vit"]),
        (["--batch", "1,65,128"], ("python_vit",), 64, ["--batch 65,128", "maximum of 64"]),
        (["--batch", "8,16", "--max-batch", "8,32"], ("python_vit",), 64, ["--batch 16", "maximum of 8"]),
        (["--batch", "2"], ("python_vit",), 0, ["--batch 2", "maximum of 1"]),
    ],
)
def test_what_only_the_target_can_tell(
    words: list[str], known: tuple[str, ...], limit: int, named: list[str]
) -> None:
    flags = Mistakes()
    check_against(read(*words), known, limit, flags)
    (said,) = flags.mistakes
    assert all(part in said for part in named)


@pytest.mark.parametrize(
    ("words", "is_served_here", "named"),
    [
        (["--concurrency", "4,2500"], True, ["--concurrency 2500", "2,628", "1,024", "ulimit -Hn"]),
        (["--concurrency", "2500", "--processes", "2"], False, ["--processes 3"]),
        (["--concurrency", "2500", "--processes", "3"], False, []),
        (["--concurrency", "2500", "--processes", "3", "--engine", "both"], False, ["--concurrency 2500"]),
        (["--concurrency", "2500", "--workers", "2"], False, []),  # they tell by themselves
        (["--concurrency", "896"], True, []),
        (["--rate", "9/s"], True, []),
    ],
)
def test_users_that_cannot_all_have_a_connection_are_refused(
    monkeypatch: pytest.MonkeyPatch, words: list[str], is_served_here: bool, named: list[str]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    flags = Mistakes()
    check_open_files(read(*words), flags, is_served_here=is_served_here)
    assert len(flags.mistakes) == bool(named)
    assert all(part in flags.mistakes[0] for part in named)


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (["--batch", "1,64"], 64),  # the limit itself
        (["--batch", "128", "--max-batch", "128"], 64),  # raised along with the batch
        (["--batch", "4096"], None),  # not known yet
        (["--batch", "1"], 0),  # no batch axis: one item
    ],
)
def test_a_batch_that_fits_is_no_mistake(words: list[str], limit: int | None) -> None:
    flags = Mistakes()
    check_against(read(*words), ("python_vit",), limit, flags)
    flags.check()


@pytest.mark.parametrize(
    ("parameter", "theirs", "is_refused"),
    [
        ("delay_mss", False, True),  # a slip
        ("depth", False, True),  # a model of ours declares all that it reads
        ("delay_mss", True, True),
        ("depth", True, False),  # a model of others may read what it does not declare
        ("delay_ms", True, False),
    ],
)
def test_a_parameter_that_the_model_does_not_declare(parameter: str, theirs: bool, is_refused: bool) -> None:
    flags = Mistakes()
    spec = SweepSpec(model="delay", batches=(1,), parameters=((parameter, ("10", "20")),))
    check_parameters(spec, ("delay_ms", "fail"), flags, may_read_others=theirs)
    assert bool(flags.mistakes) is is_refused
