"""Recorded outputs of real runs: what is read from them equals what perf_analyzer itself reported.

Each file of data/perf_analyzer is one run: exit code, stdout, stderr, and its CSV and profile export
where it wrote them (the export byte by byte, as latin-1: some versions write tensors into it raw).
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import BenchError, TargetError, ToolError, Unreachable
from bench.loadgen.perf_analyzer import export as export
from bench.loadgen.perf_analyzer.findings import (
    EXIT_EMPTY_WINDOW,
    EXIT_UNSTABLE,
    client_overhead_percent,
    explain,
    warnings,
)

RECORDED = Path(__file__).parents[2] / "data" / "perf_analyzer"


@dataclass(frozen=True, slots=True)
class Run:
    code: int
    stdout: str
    stderr: str
    csv: str | None
    export: str | None

    @property
    def content(self) -> bytes:
        assert self.export is not None
        return self.export.encode("latin-1")


@cache
def run(name: str) -> Run:
    with gzip.open(RECORDED / f"{name}.json.gz") as file:
        return Run(**json.load(file))


NAMES = sorted(path.name.removesuffix(".json.gz") for path in RECORDED.glob("*.json.gz"))
MEASURED = [name for name in NAMES if run(name).export is not None]
BATCH = {name: 8 if "batch" in name else 1 for name in NAMES}


def test_two_versions_or_more_are_recorded() -> None:
    assert {name.partition("-")[0] for name in MEASURED} >= {"2.43.0", "2.51.0"}
    assert len(MEASURED) >= 15


@pytest.mark.parametrize("name", MEASURED)
def test_figures_recomputed_from_the_export_equal_its_csv(name: str) -> None:
    """Throughput to the 6 digits it prints, percentiles and mean to the microsecond, for every level."""
    levels = {level.value: level for level in export.read_export([run(name).content])}
    rows = export.read_csv(run(name).csv or "")
    assert len(rows) == len(levels) == (3 if "levels" in name else 1)
    for row in rows:
        level = levels[float(row.get("Concurrency") or row["Request Rate"])]
        recomputed = export.figures(level, BATCH[name])
        assert recomputed is not None
        assert export.disagreement(row, recomputed) == ""
        assert f"{recomputed.inferences_per_s:.6g}" == row["Inferences/Second"]
        for percentile in export.PERCENTILES:
            assert str(recomputed.percentiles_us[percentile]) == row[f"p{percentile} latency"]


@pytest.mark.parametrize("name", MEASURED)
def test_request_count_is_the_one_it_prints(name: str) -> None:
    counts = [int(line.split(":")[1]) for line in run(name).stdout.splitlines() if "Request count:" in line]
    levels = export.read_export([run(name).content])
    recomputed = [export.figures(level, BATCH[name]) for level in levels]
    assert counts == [figure.requests for figure in recomputed if figure is not None]


@given(st.integers(1, 5000), st.sampled_from(MEASURED))
def test_reading_in_pieces_changes_nothing(size: int, name: str) -> None:
    content = run(name).content
    whole = export.read_export([content])
    pieces = export.read_export(content[at : at + size] for at in range(0, len(content), size))
    assert [level.boundaries_ns for level in pieces] == [level.boundaries_ns for level in whole]
    for one, other in zip(pieces, whole, strict=True):
        assert (one.mode, one.value) == (other.mode, other.value)
        assert np.array_equal(one.sent_ns, other.sent_ns)
        assert np.array_equal(one.done_ns, other.done_ns)


@pytest.mark.parametrize("name", [name for name in MEASURED if not name.startswith("2.44")])
def test_the_scan_finds_what_a_json_reader_finds(name: str) -> None:
    """2.44 writes tensors as raw bytes, which only the scan takes."""
    for level, told in zip(
        export.read_export([run(name).content]), json.loads(run(name).content)["experiments"], strict=True
    ):
        assert level.value == told["experiment"]["value"]
        assert list(level.boundaries_ns) == told["window_boundaries"]
        assert level.sent_ns.tolist() == [request["timestamp"] for request in told["requests"]]
        assert level.done_ns.tolist() == [r["response_timestamps"][-1] for r in told["requests"]]


def test_a_tensor_that_spells_a_token_is_not_taken_for_one() -> None:
    content = run("2.44.0-concurrency-http").content
    inside = content.replace(b'"y":"', b'"y":"\\"timestamp\\":7,\\"window_boundaries\\":[1,2]', 3)
    assert inside != content
    assert len(export.read_export([inside])[0].sent_ns) == len(export.read_export([content])[0].sent_ns)


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"", "a NaN in the tensors leaves a file of 0 bytes, with exit code 0"),
        (b'{"experiments":[]', "no level was measured"),
        (b'{"experiments":[{"experiment":{"mode":"concurrency","value":1},"requests":[{"time', "cut off"),
    ],
)
def test_an_export_that_is_no_use_is_an_error_with_a_next_step(content: bytes, because: str) -> None:
    with pytest.raises(ToolError, match="make room in the temporary folder"):
        export.read_export([content])
    assert because


@settings(max_examples=100, derandomize=True)
@given(data=st.data())
def test_a_damaged_export_gives_figures_or_a_sentence(data: st.DataObject) -> None:
    content = run(data.draw(st.sampled_from(["2.43.0-rate-grpc", "2.51.0-concurrency-http"]))).content
    found = [match.span() for match in export._TOKEN.finditer(content)]
    first, last = data.draw(st.sampled_from([*found[:20], *found[-3:]]))
    place = data.draw(st.integers(first, last))
    instead = data.draw(st.binary(max_size=4) | st.just(b"9" * 30) | st.just(b"-1,") | st.just(b"nan"))
    try:
        for level in export.read_export([content[:place] + instead + content[place + 1 :]]):
            export.figures(level, 1)
            export.unsteadiness(level, int(level.sent_ns.min()), int(level.done_ns.max()))
    except ToolError as error:
        assert_one_sentence(str(error))


def assert_one_sentence(said: str) -> None:
    assert 0 < len(said) < 500
    assert "\n" not in said


@pytest.mark.parametrize("text", ["Concurrency,x\nabc,1\n", "Concurrency,x\n\x001,2\n", "a" * 200_000])
def test_a_damaged_csv_is_a_sentence_or_nothing(text: str) -> None:
    try:
        assert all(isinstance(row, dict) for row in export.read_csv(text))
    except ToolError as error:
        assert_one_sentence(str(error))


def test_samples_land_on_the_other_clock() -> None:
    level = export.read_export([run("2.43.0-concurrency-http").content])[0]
    offset_ns = level.boundaries_ns[0] - 5_000
    samples = level.samples(offset_ns)
    assert len(samples) == len(level.sent_ns)
    assert samples.intended_ns.tolist() == samples.sent_ns.tolist()
    assert samples.sent_ns.min() == level.sent_ns.min() - level.boundaries_ns[0] + 5_000
    assert sorted(samples.service_ns.tolist()) == sorted((level.done_ns - level.sent_ns).tolist())


def test_an_unanswered_request_is_not_taken_for_an_answer() -> None:
    content = (
        b'{"experiment":{"mode":"request_rate","value":2.5},"requests":[{"timestamp":1,"response_timestamps":[]},'
        b'{"timestamp":2,"response_timestamps":[5,9]}],"window_boundaries":[0,10,20,30]}'
    )
    (level,) = export.read_export([content])
    assert level.sent_ns.tolist() == [2]
    assert level.done_ns.tolist() == [9]
    assert level.value == 2.5


def _level(done_ms: list[int], boundaries_ms: list[int]) -> export.Level:
    done = np.array(done_ms, np.int64) * 1_000_000
    sent = done - 1_000_000
    return export.Level("concurrency", 1.0, sent, done, tuple(ms * 1_000_000 for ms in boundaries_ms))


def test_only_the_last_three_windows_count_as_perf_analyzer_merges_them() -> None:
    level = _level([50, 150, 250, 350, 450], [0, 100, 200, 300, 400, 500])
    figures = export.figures(level, batch=2)
    assert figures is not None
    assert figures.requests == 3
    assert figures.inferences_per_s == pytest.approx(3 * 2 / 0.3)


@pytest.mark.parametrize(
    ("done_ms", "ratio", "because"),
    [
        ([50, 150, 250], 1.0, "every third alike"),
        ([10, 50, 150, 250], 2.0, "one third saw twice as many requests"),
        ([50, 250], float("inf"), "a third without an answer"),
    ],
)
def test_unsteadiness_compares_thirds(done_ms: list[int], ratio: float, because: str) -> None:
    assert export.unsteadiness(_level(done_ms, [0, 300]), 0, 300_000_000) == ratio, because


def test_unsteady_run_is_told_from_its_export() -> None:
    level = export.read_export([run("2.43.0-concurrency-http").content])[0]
    assert export.unsteadiness(level, level.boundaries_ns[0], level.boundaries_ns[-1]) < 1.5


def test_ragged_csv_rows_are_an_error() -> None:
    with pytest.raises(ToolError, match="does not fit its header"):
        export.read_csv("Concurrency,Inferences/Second\n1,2,3\n")


def test_csv_rows_come_by_level_not_by_throughput() -> None:
    rows = export.read_csv(run("2.43.0-levels").csv or "")
    assert [row["Concurrency"] for row in rows] == ["1", "2", "3"]


@pytest.mark.parametrize("name", MEASURED)
def test_the_client_server_split_is_found_by_column_name(name: str) -> None:
    row = export.read_csv(run(name).csv or "")[0]
    for column in ("Client Send", "Server Queue", "Server Compute Infer", "Client Recv"):
        assert int(row[column]) >= 0
    assert ("Avg GPU Utilization" in row) == ("metrics" in name)
    assert ("p75 latency" in row) == ("percentile" in name)


def test_a_csv_that_says_otherwise_is_told() -> None:
    figures = export.figures(_level([50, 150, 250], [0, 100, 200, 300]), 1)
    assert figures is not None
    assert "p99 latency: 7 in the CSV, 1000 from the export" in export.disagreement(
        {"p99 latency": "7"}, figures
    )


@pytest.mark.parametrize("version", ["2.43.0", "2.51.0"])
@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("failed", TargetError, ("this request fails on purpose", "--engine locust")),
        ("failed-async", TargetError, ("this request fails on purpose", "--engine locust")),
        ("empty", TargetError, ("without one answer", "--duration")),
        ("unstable", TargetError, ("unstable", "--warmup")),
        ("refused-http", Unreachable, ("Couldn't connect", "Is the server up")),
        ("refused-grpc", Unreachable, ("Connection refused", "Is the server up")),
        ("wrong-port-grpc", Unreachable, ("another protocol", "--grpc-url")),
        ("wrong-port-http", Unreachable, ("another protocol", "--url")),
        ("unknown-model", TargetError, ("'nosuch'", "--model")),
        ("batch-too-large", TargetError, ("batch-size must be <= 64", "--batch")),
        ("no-gpu", ToolError, ("needs a GPU", "--shared-memory system")),
    ],
)
def test_every_recorded_failure_is_explained(
    version: str, name: str, kind: type[BenchError], words: tuple[str, ...]
) -> None:
    recorded = run(f"{version}-{name}")
    assert recorded.code != 0
    assert recorded.export is None
    error = explain(recorded.code, recorded.stderr + "\n" + recorded.stdout)
    assert type(error) is kind
    for word in words:
        assert word in str(error)


def test_a_shared_memory_collision_says_to_take_turns() -> None:
    recorded = run("2.43.0-shm-collision")
    error = explain(recorded.code, recorded.stderr)
    assert isinstance(error, TargetError)
    assert "Another client has registered the shared-memory region 'y'" in str(error)
    assert "one at a time" in str(error)


@pytest.mark.parametrize("version", ["2.43.0", "2.51.0"])
def test_exit_codes_are_those_of_real_runs(version: str) -> None:
    assert run(f"{version}-empty").code == EXIT_EMPTY_WINDOW
    assert run(f"{version}-unstable").code == EXIT_UNSTABLE


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (-9, "", "its memory"),
        (134, "terminate called after throwing an instance of 'std::bad_alloc'", "out of memory"),
        (99, "error: SSL peer certificate or SSH remote key was not OK", "SSL_CERT_FILE"),
        (
            99,
            "error: failed to get model metadata: failed to connect to all addresses; "
            "last error: UNKNOWN: Ssl handshake failed",
            "TLS connection failed",
        ),
        (99, "  something new went wrong: error 7", "something new went wrong: error 7"),
        (1, "", "it said nothing"),
    ],
)
def test_other_ends_are_explained_too(code: int, said: str, words: str) -> None:
    assert words in str(explain(code, said, "perf_analyzer -m x"))


@given(st.integers(-15, 255), st.text(max_size=200))
def test_whatever_it_says_there_is_one_bounded_message(code: int, said: str) -> None:
    assert 0 < len(str(explain(code, said))) < 1500


def test_client_overhead_is_told_with_v_only() -> None:
    assert client_overhead_percent(run("2.43.0-concurrency-http").stdout) is not None
    assert client_overhead_percent(run("2.43.0-plain-csv").stdout) is None


@pytest.mark.parametrize("version", ["2.43.0", "2.51.0"])
def test_late_requests_are_remarked_on_above_a_few_percent(version: str) -> None:
    assert warnings(run(f"{version}-rate-grpc").stdout) == ()
    late = "[WARNING] Perf Analyzer was not able to keep up.\n98.66% of the requests were delayed."
    assert warnings(late) == ("98.66% of the requests were delayed",)
