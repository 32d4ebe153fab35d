"""The table of options: each value is read back as it is written, and what derives from it agrees."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bench.cluster.platforms import PLATFORMS as BUILT
from bench.core import command_line
from bench.core.cell import Engine
from bench.core.command_line import LOAD_MAKERS, OUTSIDE, TARGET, inside_cluster
from bench.core.gates import MEASURES, Gate
from bench.core.kinds import Kind
from bench.core.options import BY_FLAG, MEASURING, OPTIONS, PLATFORMS, Option, variant_settings
from bench.core.parsing import choices
from bench.core.slo import Slo
from bench.core.units import PERCENTILES
from bench.core.variant import Variant
from bench.report.exports import EXPORTERS

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,9}", fullmatch=True)
texts = st.text(st.sampled_from("abcXYZ_-09./=: é"), min_size=1, max_size=12)
words = st.text(st.sampled_from("abcXYZ_-09."), min_size=1, max_size=8)
seconds = st.decimals("0.000001", "99999", places=6).map(float)
hosts = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z]{2,5})?", fullmatch=True)
ports = st.integers(1, 65535)


def some(values: st.SearchStrategy[Any], most: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=1, max_size=most, unique=True).map(tuple)


def enumerated(kind: Kind[Any]) -> list[Any]:
    """The values of a kind whose words are all that it takes, without the word for all of them."""
    return [kind.parse(word) for word in kind.words if word != "both" or len(kind.words) != 3]


def gates() -> st.SearchStrategy[Gate]:
    shares = st.integers(1, 99).map(lambda percent: percent / 100)
    percentiles = [measure for measure in MEASURES if measure.startswith("p")]
    worse = st.builds(lambda measure, share: Gate(measure, 1 + share), st.sampled_from(percentiles), shares)
    errors = shares.map(lambda share: Gate("errors", share))
    return worse | errors | shares.map(lambda share: Gate("throughput", 1 - share))


def slos() -> st.SearchStrategy[Slo]:
    bounds = st.dictionaries(st.sampled_from(PERCENTILES), st.integers(1, 10**12), min_size=1, max_size=3)
    errors = st.integers(0, 1000).map(lambda tenths: float(f"{tenths / 10:g}") / 100)
    return st.builds(lambda terms, share: Slo(tuple(sorted(terms.items())), share), bounds, errors)


def variants() -> st.SearchStrategy[Variant]:
    settings = st.dictionaries(st.sampled_from([*variant_settings(), "delay_ms", "x"]), words, max_size=3)
    return st.builds(lambda name, chosen: Variant(name, tuple(chosen.items())), names, settings)


def values_of(kind: Kind[Any]) -> st.SearchStrategy[Any]:
    """Any value that an option of this kind can have."""
    integers = st.integers(kind.low, kind.high)
    by_label: dict[str, st.SearchStrategy[Any]] = {
        "integers": some(integers),
        "integer": integers,
        "text": texts,
        "path": texts.map(lambda text: text.strip("/ ") or "x").map(OPTIONS["out"].parse),
        "switch": st.booleans(),
        "rates": some(st.decimals("0.001", "99999", places=3).map(float)).filter(
            lambda rates: len({f"{rate:g}" for rate in rates}) == len(rates)
        ),
        "delays": some(st.integers(-1, 10**7)),
        "time": seconds | st.just(0.0),
        "lasting": seconds,
        "window": seconds | st.just("auto"),
        "image": st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
        "share": st.integers(1, 999).map(lambda permille: permille / 1000),
        "fraction": st.integers(0, 1000).map(lambda permille: permille / 1000),
        "processes": st.integers(0, 128),
        "slo": slos(),
        "axis": st.tuples(names, some(words)),
        "setting": st.tuples(names, texts),
        "header": st.tuples(names, texts.map(str.strip)),
        "url": st.builds(lambda host, port: f"http://{host}:{port}", hosts, ports),
        "proxy": st.builds(lambda host, port: f"http://{host}:{port}", hosts, ports) | st.just("env"),
        "size": st.integers(1 << 10, 1 << 30),
        "host_port": st.builds(lambda host, port: f"{host}:{port}", hosts, ports),
        "metrics": st.builds(lambda host, port: f"http://{host}:{port}/metrics", hosts, ports),
        "master": st.tuples(hosts, ports),
        "names": some(hosts, 2),
        "gate": gates(),
        "variant": variants(),
    }
    if kind.label in ("choice", "word"):
        return st.sampled_from(enumerated(kind))
    if kind.label == "choices":
        singles = [one for value in enumerated(kind) for one in value]
        return some(st.sampled_from(list(dict.fromkeys(singles))))
    return by_label[kind.label]


every_option = pytest.mark.parametrize("option", list(OPTIONS.values()), ids=list(OPTIONS))
# There are hundreds of options and few kinds of values, so each kind is drawn hundreds of times all the same.
few_examples = hypothesis_settings(max_examples=20)
every_flag = pytest.mark.parametrize(("flag", "option"), list(BY_FLAG.items()), ids=list(BY_FLAG))


@every_option
@few_examples
@given(data=st.data())
def test_a_value_is_read_back_as_it_is_written(option: Option, data: st.DataObject) -> None:
    value = data.draw(values_of(option.kind))
    if value == () or value is False:
        return
    assert option.parse(option.format(value)) == value


@every_flag
@few_examples
@given(data=st.data())
def test_every_spelling_of_a_flag_is_understood(flag: str, option: Option, data: st.DataObject) -> None:
    text = option.format(data.draw(values_of(option.kind)))
    others = ("--unheard-of", "--batch", "8")
    if option.is_switch:
        spellings = [(flag,)]
    elif flag.startswith("--"):
        spellings = [(flag, text), (f"{flag}={text}",)]
    else:
        spellings = [(flag, text), (f"{flag}{text}",)] if text else [(flag, text)]
    for typed in spellings:
        said = list(command_line.read(("bench", "sweep", *others, *typed, *others)))
        assert [one.option for one in said] == [None, OPTIONS["batch"], option, None, OPTIONS["batch"]]
        assert said[2].words == typed
        assert said[2].text == ("true" if option.is_switch else text)


@every_flag
def test_a_sweep_in_the_cluster_is_asked_all_but_where_it_runs(flag: str, option: Option) -> None:
    value = () if option.is_switch else ("1",)
    spellings = [(flag, *value)] if option.is_switch else [(flag, "1"), _joined(flag, "1")]
    for typed in spellings:
        command = ("bench", "sweep", "--rate", "5/s", *typed, "--slo", "p99=1s")
        kept = ("--rate", "5/s", *(() if option.scope in OUTSIDE else typed), "--slo", "p99=1s")
        assert inside_cluster(command) == kept


def _joined(flag: str, text: str) -> tuple[str]:
    return (f"{flag}={text}" if flag.startswith("--") else f"{flag}{text}",)


def test_what_is_stripped_and_what_is_repeated() -> None:
    """The scopes, spelled out once: this is what they mean."""
    stripped = {option.name for option in MEASURING if option.scope in OUTSIDE}
    assert stripped == {
        "mlservice", "namespace", "context", "platform",
        "deploy", "triton_image", "gpu", "queue", "set", "keep",
        "workers", "locust_master", "in_cluster", "load_image", "load_account",
        "name", "out", "force", "resume", "dry_run", "as_json",
    }  # fmt: skip
    repeated = {option.name for option in MEASURING if option.scope in TARGET and not option.is_secret}
    assert repeated == {
        "url", "grpc_url", "metrics_url", "vit", "repository", "slo", "mlservice", "namespace", "context",
        "platform", "ca", "cert", "key", "insecure", "proxy",
        "deploy", "triton_image", "gpu", "queue", "set",
    }  # fmt: skip
    makers = {option.name for option in MEASURING if option.scope in LOAD_MAKERS}
    assert makers == {"workers", "locust_master", "in_cluster", "load_image", "load_account"}


@every_option
def test_an_option_is_one_that_can_be_used(option: Option) -> None:
    if option.default is not None and not option.multiple:
        assert option.format(option.parse(option.default)) or option.is_switch
    for name in (name for needed in option.needs for name in needed):
        assert name in OPTIONS
    for name in (name for excluded in option.excludes for name in excluded.names):
        assert name in OPTIONS
    assert option.help.endswith((".", "..."))


def test_no_flag_stands_for_two_options_of_a_measurement() -> None:
    flags = [flag for option in MEASURING for flag in option.flags]
    assert len(set(flags)) == len(flags)


def test_platforms_are_those_that_can_be_deployed() -> None:
    assert tuple(BUILT) == PLATFORMS


def test_both_means_all_of_two() -> None:
    assert choices(Engine, "both")("both") == tuple(Engine)


def test_every_form_of_a_report_has_its_exporter() -> None:
    assert set(OPTIONS["report_format"].kind.words) == set(EXPORTERS)
