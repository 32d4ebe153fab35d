"""perf_analyzer as an engine, against a real Triton: it tells the truth, or says clearly why it cannot."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from bench.core.cell import Arrival, Cell, Engine, Load, Protocol, ServerConfiguration, SharedMemory
from bench.core.errors import TargetError, ToolError, Unreachable, WrongUse
from bench.core.findings import Severity
from bench.core.target import Target, Tls
from bench.core.trial import Live, Plan, Served, Trial
from bench.loadgen.arrivals import tape_ns
from bench.loadgen.locust.engine import LocustEngine
from bench.loadgen.perf_analyzer import engine as perf_analyzer
from bench.loadgen.perf_analyzer.command import (
    Files,
    command,
    masked,
    without_secrets,
    write_inputs,
    write_intervals,
)
from bench.loadgen.perf_analyzer.engine import PerfAnalyzerEngine
from bench.loadgen.perf_analyzer.install import PerfAnalyzer, setup
from bench.loadgen.perf_analyzer.process import PerfAnalyzerProcess, memory_limit_bytes
from bench.server.embedded import EmbeddedTriton, start
from tests.support.calibration import parameters, serve, undisturbed

REPOSITORY = Path(__file__).parents[2] / "model_repository"
METADATA = {
    "name": "vit",
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, -1, -1, -1]}],
    "outputs": [{"name": "last_hidden_state", "datatype": "FP32", "shape": [-1, 197, 768]}],
}
VIT = Served(METADATA, {"max_batch_size": 64})
HERE = Target("http://127.0.0.1:8000", "127.0.0.1:8001")


def plan_of(model: str = "vit", *, warmup_s: float = 0.5, duration_s: float = 1.5, **load: Any) -> Plan:
    asked = {"protocol": Protocol.HTTP, "batch": 1, **load}
    if "rate_per_s" not in asked:
        asked.setdefault("concurrency", 1)
    cell = Cell(
        server=ServerConfiguration(model=model),
        load=Load(**asked),
        engine=Engine.PERF_ANALYZER,
    )
    return Plan(
        cell=cell,
        repeat=0,
        seed=7,
        warmup_s=warmup_s,
        duration_s=duration_s,
        image_height=32,
        image_width=32,
    )


def words_of(plan: Plan, target: Target = HERE, size: int = 12_288) -> list[str]:
    return command(Path("perf_analyzer"), plan, target, VIT, Files(Path("scratch")), 9.0, size)


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


class TestCommand:
    """Options follow from the plan; each trap of perf_analyzer's has its option."""

    def test_three_windows_cover_the_span(self) -> None:
        """A window is 1.2 measurement intervals, and it needs three of them."""
        words = words_of(plan_of())
        assert 3 * 1.2 * int(option(words, "--measurement-interval")) >= 9000
        assert option(words, "-r") == "3"
        assert "--request-count" not in words  # its throughput is wrong

    def test_each_protocol_has_its_port(self) -> None:
        assert option(words_of(plan_of()), "-u") == "127.0.0.1:8000"
        assert option(words_of(plan_of(protocol=Protocol.GRPC)), "-u") == "127.0.0.1:8001"

    def test_grpc_without_an_address_names_the_flag(self) -> None:
        with pytest.raises(TargetError, match="--grpc-url"):
            words_of(plan_of(protocol=Protocol.GRPC), Target("http://h:1"))

    def test_a_closed_loop_is_synchronous_an_open_one_is_not(self) -> None:
        assert option(words_of(plan_of(concurrency=8)), "--concurrency-range") == "8"
        assert "--sync" in words_of(plan_of(concurrency=8))
        assert "--async" in words_of(plan_of(rate_per_s=5.0))

    def test_large_tensors_get_fewer_threads(self) -> None:
        """Each holds a request's and an answer's tensors: 16 of them took 900 MB at batch 32."""
        few = option(words_of(plan_of(rate_per_s=5.0), size=19 << 20), "--max-threads")
        assert int(few) < int(option(words_of(plan_of(rate_per_s=5.0)), "--max-threads"))

    @pytest.mark.parametrize(
        ("protocol", "flag"),
        [(Protocol.HTTP, "--ssl-https-ca-certificates-file"), (Protocol.GRPC, "--ssl-grpc-use-ssl")],
    )
    def test_tls_follows_the_url(self, protocol: Protocol, flag: str) -> None:
        words = words_of(plan_of(protocol=protocol), dataclasses.replace(HERE, http_url="https://host:443"))
        assert flag in words
        assert flag not in words_of(plan_of(protocol=protocol))
        assert option(words, "-u") == ("https://host:443" if protocol is Protocol.HTTP else "127.0.0.1:8001")

    def test_files_and_trust_are_passed(self) -> None:
        tls = Tls(ca="ca.pem", certificate="c.pem", key="k.pem")
        target = dataclasses.replace(HERE, http_url="https://host:443", tls=tls)
        words = words_of(plan_of(), target)
        assert option(words, "--ssl-https-ca-certificates-file") == "ca.pem"
        assert option(words, "--ssl-https-client-certificate-file") == "c.pem"
        assert option(words, "--ssl-https-private-key-file") == "k.pem"
        words = words_of(plan_of(protocol=Protocol.GRPC), target)
        assert option(words, "--ssl-grpc-root-certifications-file") == "ca.pem"
        assert option(words, "--ssl-grpc-certificate-chain-file") == "c.pem"

    def test_what_perf_analyzer_cannot_do_is_refused(self) -> None:
        blind = dataclasses.replace(HERE, http_url="https://host:443", tls=Tls(insecure=True))
        assert option(words_of(plan_of(), blind), "--ssl-https-verify-peer") == "0"
        with pytest.raises(WrongUse, match="--ca"):
            words_of(plan_of(protocol=Protocol.GRPC), blind)
        with pytest.raises(WrongUse, match="--proxy"):
            words_of(plan_of(), dataclasses.replace(HERE, proxy="http://p:1"))

    def test_headers_are_passed_and_never_kept(self) -> None:
        target = dataclasses.replace(HERE, headers=(("Authorization", "Bearer s3cret"), ("X-Team", "vision")))
        http = words_of(plan_of(), target)
        assert option(http, "-H") == "Authorization: Bearer s3cret"
        for words in (http, words_of(plan_of(protocol=Protocol.GRPC), target)):
            kept = " ".join(masked(words, target))
            assert "s3cret" not in kept
            assert "Authorization: ***" in kept
        assert without_secrets("sent Bearer s3cret", target) == "sent ***"

    def test_grpc_headers_are_lower_case(self) -> None:
        """At others perf_analyzer aborts."""
        target = dataclasses.replace(HERE, headers=(("Authorization", "x"),))
        assert option(words_of(plan_of(protocol=Protocol.GRPC), target), "-H") == "authorization: x"

    @pytest.mark.parametrize(("batch", "size"), [(1, 605_184), (8, 8 * 605_184)])
    def test_shared_memory_fits_the_largest_output(self, batch: int, size: int) -> None:
        words = words_of(plan_of(batch=batch, shared_memory=SharedMemory.SYSTEM))
        assert option(words, "--shared-memory") == "system"
        assert option(words, "--output-shared-memory-size") == str(size)

    def test_an_output_of_no_fixed_size_is_wrong_use(self) -> None:
        outputs = [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}]
        served = Served({**METADATA, "outputs": outputs}, {"max_batch_size": 64})
        plan = plan_of(shared_memory=SharedMemory.SYSTEM)
        with pytest.raises(WrongUse, match="no fixed size"):
            command(Path("p"), plan, HERE, served, Files(Path("x")), 9.0, 1)

    def test_a_version_is_asked_for_by_name(self) -> None:
        plan = dataclasses.replace(plan_of(), model_version="3")
        assert option(words_of(plan), "-x") == "3"


class TestFiles:
    def test_inputs_are_the_other_engines_items(self, tmp_path: Path) -> None:
        """As many as the batch: so every request carries the same bytes as the other engine's."""
        import base64

        from bench.protocols.payload import for_model

        size = write_inputs(plan_of(batch=4), VIT, Files(tmp_path))
        (tensor,) = for_model(METADATA, 64, 4, seed=0, image_height=32, image_width=32)
        items = json.loads(Files(tmp_path).inputs.read_text())["data"]
        assert b"".join(base64.b64decode(item["image"]["b64"]) for item in items) == tensor.data
        assert all(item["image"]["shape"] == [32, 32, 3] for item in items)
        assert size == len(tensor.data)

    def test_bytes_elements_keep_their_lengths(self, tmp_path: Path) -> None:
        import base64

        inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1, 2]}]
        served = Served({**METADATA, "inputs": inputs}, {"max_batch_size": 8})
        write_inputs(plan_of(batch=3), served, Files(tmp_path))
        items = json.loads(Files(tmp_path).inputs.read_text())["data"]
        assert len(items) == 3
        for item in items:
            data = base64.b64decode(item["text"]["b64"])
            first = int.from_bytes(data[:4], "little")
            second = int.from_bytes(data[4 + first : 8 + first], "little")
            assert len(data) == 8 + first + second

    def test_regions_of_shared_memory_stay_few(self, tmp_path: Path) -> None:
        """Every item has a region of a whole batch: 32 images of 224x224 would take 616 MB."""
        plan = dataclasses.replace(
            plan_of(batch=32, shared_memory=SharedMemory.SYSTEM), image_height=224, image_width=224
        )
        size = write_inputs(plan, VIT, Files(tmp_path))
        kept = len(json.loads(Files(tmp_path).inputs.read_text())["data"])
        assert kept >= 1
        assert kept * size <= 64 << 20

    @pytest.mark.parametrize("arrival", list(Arrival))
    def test_intervals_do_not_drift_from_the_tape(self, tmp_path: Path, arrival: Arrival) -> None:
        due_ns = tape_ns(arrival, 333.3, 20, 7)
        write_intervals(due_ns, Files(tmp_path))
        gaps_us = [int(line) for line in Files(tmp_path).intervals.read_text().splitlines()]
        assert min(gaps_us) >= 0
        assert np.abs(np.cumsum(gaps_us) * 1000 - due_ns).max() <= 500


def stub(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "stub.py"
    path.write_text(body)
    return [sys.executable, str(path)]


class TestProcess:
    """Its end is certain, and its memory bounded."""

    def test_one_that_ignores_sigint_is_killed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bench.loadgen.perf_analyzer.process._GRACE_S", 0.3)
        body = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on', flush=True)\n"
        with PerfAnalyzerProcess(
            stub(tmp_path, body + "time.sleep(60)"), os.environ, tmp_path, 1 << 30
        ) as process:
            while "on" not in process.output()[0]:
                time.sleep(0.02)
        assert process.code == -signal.SIGKILL
        assert not psutil.pid_exists(process.pid)

    def test_sigint_comes_first(self, tmp_path: Path) -> None:
        body = "import time\nprint('on', flush=True)\ntry:\n    time.sleep(60)\n"
        body += "except KeyboardInterrupt:\n    print('in peace')"
        with PerfAnalyzerProcess(stub(tmp_path, body), os.environ, tmp_path, 1 << 30) as process:
            while "on" not in process.output()[0]:
                time.sleep(0.02)
        assert process.code == 0
        assert "in peace" in process.output()[0]

    def test_too_much_memory_is_an_error_with_a_way_out(self, tmp_path: Path) -> None:
        body = "import time\nheld = b'x' * (200 << 20)\ntime.sleep(60)"
        with PerfAnalyzerProcess(stub(tmp_path, body), os.environ, tmp_path, 100 << 20) as process:
            with pytest.raises(ToolError, match="--shared-memory system"):
                process.wait(time.monotonic_ns() + 20_000_000_000)
            assert process.max_rss_bytes > 100 << 20

    def test_a_flood_of_output_stays_bounded(self, tmp_path: Path) -> None:
        body = "print('first'); print('x' * 10**6); print('last')"
        with PerfAnalyzerProcess(stub(tmp_path, body), os.environ, tmp_path, 1 << 30) as process:
            assert process.wait(time.monotonic_ns() + 20_000_000_000)
            said = process.output()[0]
        assert len(said) < 30_000
        assert said.startswith("first")
        assert said.rstrip().endswith("last")

    def test_no_proxy_is_measured(self, tmp_path: Path) -> None:
        body = "import os\nprint([n for n in os.environ if 'proxy' in n.lower()])"
        env = {**os.environ, "http_proxy": "http://p:1", "HTTPS_PROXY": "http://p:1", "grpc_proxy": "x"}
        with PerfAnalyzerProcess(stub(tmp_path, body), env, tmp_path, 1 << 30) as process:
            process.wait(time.monotonic_ns() + 20_000_000_000)
        assert process.output()[0].strip() == "[]"

    def test_the_limit_grows_with_what_is_in_flight(self) -> None:
        small, large = plan_of(concurrency=1), plan_of(concurrency=4, batch=32)
        assert memory_limit_bytes(small, 602_112) <= 1.1 * (1 << 30)
        assert memory_limit_bytes(large, 32 * 602_112) > memory_limit_bytes(small, 602_112)


@pytest.fixture(scope="session")
def tool() -> PerfAnalyzer:
    return setup(lambda _: None)


def load_model(server: EmbeddedTriton, model: str, **values: object) -> Served:
    """As its file says, but for these parameters."""
    return serve(server, ServerConfiguration(model=model, parameters=parameters(**values)))


def codes(trial: Trial) -> Mapping[str, Severity]:
    return {finding.code: finding.severity for finding in trial.findings}


def is_like_the_server(trial: Trial) -> bool:
    """Whether 20 answers a second of 50 ms were seen."""
    done = trial.samples.done_in(trial.window)
    rate_per_s = len(done) / trial.window.seconds
    return abs(rate_per_s - 20) <= 0.08 * 20 and 50e6 <= np.median(done.response_ns) <= 55e6


@pytest.mark.e2e
class TestAgainstTriton:
    @pytest.mark.parametrize("protocol", list(Protocol))
    def test_a_known_delay_is_found(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path, protocol: Protocol
    ) -> None:
        served = load_model(triton, "delay", delay_ms=50)
        seen: list[Live] = []
        plan = plan_of("delay", protocol=protocol)
        trial = PerfAnalyzerEngine(tool, tmp_path).measure(plan, triton.target, served, seen.append)
        done = trial.samples.done_in(trial.window)
        # Judged by what the server counted: on a busy machine it answers less often than every 50 ms.
        counted = trial.counters
        assert counted is not None
        assert abs(counted.success_count - len(done)) <= 2
        assert len(done) <= trial.window.seconds / 0.05 + 1
        in_server_ns = counted.success_ns / counted.success_count
        assert in_server_ns >= 50e6
        assert 50e6 <= done.service_ns.mean() < 3 * in_server_ns
        assert trial.window.seconds >= plan.duration_s / 2
        assert 0 < trial.generator.max_rss_bytes < 100e6
        assert seen
        assert not list(tmp_path.iterdir())
        assert not [child for child in psutil.Process().children() if "perf_analyzer" in child.name()]

    @pytest.mark.alone
    @pytest.mark.parametrize("protocol", list(Protocol))
    def test_both_engines_see_the_same_server(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path, protocol: Protocol
    ) -> None:
        """Both see the server's rate and median within 8 % and 5 ms; measured: 0.2 to 3 %, and 0.3 ms."""
        served = load_model(triton, "delay", delay_ms=50)
        plan = plan_of("delay", protocol=protocol, duration_s=1.5)
        with LocustEngine() as locust:
            ours = undisturbed(lambda: locust.measure(plan, triton.target, served), is_like_the_server)
        theirs = undisturbed(
            lambda: PerfAnalyzerEngine(tool, tmp_path).measure(plan, triton.target, served),
            is_like_the_server,
        )
        for trial in (ours, theirs):
            assert is_like_the_server(trial)

    def test_what_it_said_and_did_is_kept(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path
    ) -> None:
        served = load_model(triton, "delay", delay_ms=5)
        target = dataclasses.replace(triton.target, headers=(("Authorization", "Bearer s3cret"),))
        plan = plan_of("delay", duration_s=0.6, protocol=Protocol.GRPC)
        trial = PerfAnalyzerEngine(tool, tmp_path).measure(plan, target, served)
        assert trial.engine["version"] == tool.version
        assert trial.engine["sha256"] == tool.sha256
        assert "-m delay -i grpc" in trial.engine["command"]
        assert "Request concurrency: 1" in trial.engine["stdout"]
        assert "s3cret" not in json.dumps(dict(trial.engine))
        split = json.loads(trial.engine["csv"])
        assert int(split["Server Compute Infer"]) >= 5000
        assert "csv-disagrees" not in codes(trial)

    @pytest.mark.parametrize("protocol", list(Protocol))
    def test_a_batch_of_images_arrives_whole(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path, protocol: Protocol
    ) -> None:
        served = load_model(triton, "null_vit")
        plan = plan_of("null_vit", protocol=protocol, batch=8, concurrency=2, duration_s=1)
        trial = PerfAnalyzerEngine(tool, tmp_path).measure(plan, triton.target, served)
        assert trial.counters is not None
        assert trial.counters.inference_count == 8 * trial.counters.success_count
        assert len(trial.samples.done_in(trial.window)) > 5
        assert trial.generator.max_rss_bytes < 1 << 30

    def test_shared_memory_carries_no_tensors(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path
    ) -> None:
        served = load_model(triton, "null_vit")
        plan = plan_of("null_vit", batch=4, shared_memory=SharedMemory.SYSTEM, duration_s=1)
        trial = PerfAnalyzerEngine(tool, tmp_path).measure(plan, triton.target, served)
        assert len(trial.samples.done_in(trial.window)) > 5
        assert trial.generator.max_rss_bytes < 200e6

    @pytest.mark.parametrize("protocol", list(Protocol))
    def test_an_open_loop_follows_our_tape(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path, protocol: Protocol
    ) -> None:
        """The same seed gives both engines the same arrivals: half of them are within 5 ms of the tape.

        With the tape of another seed half are more than 40 ms away. Any single one may be sent late.
        """
        served = load_model(triton, "delay", delay_ms=1)
        plan = plan_of("delay", protocol=protocol, rate_per_s=40.0)
        trial = PerfAnalyzerEngine(tool, tmp_path).measure(plan, triton.target, served)
        sent_ns = np.sort(trial.samples.sent_ns)
        due_ns = tape_ns(Arrival.POISSON, 40.0, 30, plan.seed)[: len(sent_ns)]
        late_ns = sent_ns - due_ns
        assert float(np.median(np.abs(late_ns - np.median(late_ns)))) < 5e6
        assert codes(trial)["time-origin"] is Severity.NOTE
        assert trial.planned is not None
        assert trial.planned == pytest.approx(40 * (plan.warmup_s + 0.5 + plan.duration_s), rel=0.4)

    def test_an_overload_is_labelled(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path
    ) -> None:
        """Answers later than its end are forgotten by perf_analyzer: those percentiles are not to be had."""
        served = load_model(triton, "delay", delay_ms=50)
        plan = plan_of("delay", rate_per_s=50.0, arrival=Arrival.CONSTANT)
        trial = PerfAnalyzerEngine(tool, tmp_path).measure(plan, triton.target, served)
        assert codes(trial)["late-answers-cut"] is Severity.INVALID

    @pytest.mark.parametrize(
        "load", [{"concurrency": 2}, {"rate_per_s": 200.0}, {"concurrency": 2, "protocol": Protocol.GRPC}]
    )
    def test_failing_requests_are_a_clear_error(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path, load: Mapping[str, Any]
    ) -> None:
        """1 % fail; perf_analyzer ends at the first and keeps nothing, so there is nothing to label."""
        served = load_model(triton, "faulty", mode="error", fraction=0.01)
        with pytest.raises(TargetError, match=r"fails on purpose.*--engine locust.*had counted"):
            PerfAnalyzerEngine(tool, tmp_path).measure(plan_of("faulty", **load), triton.target, served)

    def test_an_unstable_trial_keeps_its_numbers(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path
    ) -> None:
        """A stall of 0.7 s in a window of 1.5 s: perf_analyzer's own rule would give no numbers at all."""
        served = load_model(triton, "delay", delay_ms=5, stall_after_s=1.3, stall_s=0.7)
        trial = PerfAnalyzerEngine(tool, tmp_path).measure(plan_of("delay"), triton.target, served)
        assert codes(trial)["perf-analyzer-unstable"] is Severity.WARNING
        assert len(trial.samples.done_in(trial.window)) > 20

    def test_a_slow_model_gets_a_longer_window(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path
    ) -> None:
        """perf_analyzer's first window sees too few answers; the second try is longer."""
        served = load_model(triton, "delay", delay_ms=300)
        plan = plan_of("delay", warmup_s=0.1, duration_s=0.6)
        trial = PerfAnalyzerEngine(tool, tmp_path).measure(plan, triton.target, served)
        assert codes(trial)["window-stretched"] is Severity.NOTE
        assert len(trial.samples.done_in(trial.window)) >= 1

    def test_a_killed_server_is_an_error_and_no_hang(self, tool: PerfAnalyzer, tmp_path: Path) -> None:
        with start(REPOSITORY, log=tmp_path / "server.log") as server:
            served = load_model(server, "delay", delay_ms=20)
            pid = server.target.pid
            assert pid is not None
            threading.Timer(1.5, os.kill, (pid, signal.SIGKILL)).start()
            started = time.monotonic()
            with pytest.raises(Unreachable, match=r"went away|Nothing answers"):
                PerfAnalyzerEngine(tool, tmp_path).measure(
                    plan_of("delay", duration_s=4), server.target, served
                )
            assert time.monotonic() - started < 30

    def test_one_that_never_ends_is_killed(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever its binary does: here it sends nothing and goes on for ever."""
        served = load_model(triton, "delay")
        fake = tmp_path / "fake"
        fake.write_text("#!/bin/sh\nexec sleep 600\n")
        fake.chmod(0o755)
        monkeypatch.setattr(perf_analyzer, "_STRETCHES", (1,))
        with pytest.raises(TargetError, match="without one answer"):
            PerfAnalyzerEngine(dataclasses.replace(tool, binary=fake), tmp_path).measure(
                plan_of("delay"), triton.target, served
            )

    @pytest.mark.parametrize("wrong", ["http", "closed"])
    def test_a_wrong_port_names_the_flag(
        self, triton: EmbeddedTriton, tool: PerfAnalyzer, tmp_path: Path, wrong: str
    ) -> None:
        served = load_model(triton, "delay")
        address = triton.target.http_url.removeprefix("http://") if wrong == "http" else "127.0.0.1:1"
        target = dataclasses.replace(triton.target, grpc_address=address)
        with pytest.raises(Unreachable, match="--grpc-url"):
            PerfAnalyzerEngine(tool, tmp_path).measure(
                plan_of("delay", protocol=Protocol.GRPC), target, served
            )
