"""An embedded Triton: found, started on loopback, explained when it fails, and gone without a trace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.core.errors import ServerStartFailed
from bench.server import embedded
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton, Tritonserver, find_tritonserver, start
from bench.server.leftovers import remove_leftovers
from tests.support.nvidia_client import ask
from tests.support.waiting import until

LOGS = Path(__file__).parents[1] / "data" / "start_failures"
REPOSITORY = Path(__file__).parents[2] / "model_repository"


class TestFind:
    def test_what_is_named_must_be_an_executable_file(self, tmp_path: Path) -> None:
        with pytest.raises(ServerStartFailed, match="no executable file"):
            find_tritonserver(tmp_path / "none")
        with pytest.raises(ServerStartFailed, match="no executable file"):
            find_tritonserver(tmp_path)

    def test_what_is_named_comes_before_path_and_path_before_the_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        named, on_path = tmp_path / "named", tmp_path / "bin" / "tritonserver"
        on_path.parent.mkdir()
        for file in (named, on_path):
            file.touch(mode=0o755)
        monkeypatch.setenv("PATH", str(on_path.parent))
        assert find_tritonserver(named).binary == named
        assert find_tritonserver().binary == on_path

    def test_the_package_is_laid_out_in_the_user_s_cache_and_never_written_to(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("PATH", "/nowhere")
        first = find_tritonserver()
        assert first.backends is not None
        assert first.backends.is_relative_to(tmp_path)
        assert all(path.is_symlink() for path in (first.backends / "python").iterdir())
        assert (first.backends / "python" / "triton_python_backend_stub").exists()
        assert find_tritonserver() == first

    @pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "PYTHONPATH"])
    def test_what_the_environment_names_is_looked_through_too_after_our_own(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In many containers a GPU's driver is found in no other way."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.delenv(name, raising=False)
        own = dict(find_tritonserver().environment)[name]
        monkeypatch.setenv(name, "/driver/lib64")
        assert dict(find_tritonserver().environment)[name] == f"{own}{os.pathsep}/driver/lib64"
        assert "" not in own.split(os.pathsep)  # that would be the working directory

    def test_without_any_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(embedded, "find_spec", lambda _: None)
        with pytest.raises(ServerStartFailed, match=r"triton-bench\[serve\].*--url"):
            find_tritonserver()

    def test_a_stub_without_libpython_is_told_before_triton_waits_for_it_for_good(
        self, tmp_path: Path
    ) -> None:
        stub = tmp_path / "stub"
        line = (LOGS / "stub_no_libpython.log").read_text().split("stub: ")[1].splitlines()[0]
        stub.write_text(f"#!/bin/sh\necho 'stub: {line}' >&2\nexit 127\n")
        stub.chmod(0o755)
        with pytest.raises(ServerStartFailed, match="no libpython"):
            embedded._check_stub(stub, ())


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedTriton]:
    """A server for one test, with a stub running."""
    with start(REPOSITORY, log=tmp_path / "server.log", models=["null_small"]) as server:
        yield server


def family(server: EmbeddedTriton) -> list[psutil.Process]:
    """Supervisor, its guard, tritonserver and stubs."""
    supervisor = psutil.Process(server._supervisor.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def until_ended(processes: list[psutil.Process]) -> None:
    until(lambda: not any(map(runs, processes)), 20)


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def shared_memory(pid: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"bench_{pid}_*")]


def model(repository: Path, name: str, code: str) -> Path:
    """An echo model whose `execute` and more is `code`."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(code)
    config = (REPOSITORY / "null_small" / "config.pbtxt").read_text().replace("null_small", name)
    (folder.parent / "config.pbtxt").write_text(config)
    return repository


@contextmanager
def busy(folder: Path) -> Iterator[EmbeddedTriton]:
    """A server whose one stub is in a request for good: in C code that keeps Python's lock."""
    code = (REPOSITORY / "null_small" / "1" / "model.py").read_text()
    started = folder / "started"
    wait = f"        open({str(started)!r}, 'w')\n        import re; re.match('(a+)+$', 'a' * 64 + 'b')\n"
    repository = model(folder / "models", "busy", code.replace("        return [", f"{wait}        return ["))
    with start(repository, log=folder / "log", models=["busy"]) as server:
        x = np.zeros((1, 16), np.float32)

        def request() -> None:
            with suppress(Exception):  # it gets no answer
                ask(server.target, "busy", x=x)

        asking = threading.Thread(target=request, daemon=True)
        asking.start()
        until(started.exists, 20)
        yield server


@pytest.mark.e2e
class TestRunning:
    def test_all_three_ports_are_on_loopback_only(self, triton: EmbeddedTriton) -> None:
        held = [c for c in psutil.Process(triton.pid).net_connections("tcp") if c.status == "LISTEN"]
        assert {c.laddr.ip.removeprefix("::ffff:") for c in held} == {"127.0.0.1"}
        assert triton.ports == {c.laddr.port for c in held}

    def test_no_model_is_loaded_unless_asked_for(self, own: EmbeddedTriton) -> None:
        control = Triton(own.target)
        assert control.model_ready("null_small")
        assert not control.model_ready("delay")
        assert "nv_cpu_utilization" in control.metrics()
        control.close()

    def test_stopping_leaves_nothing(self, own: EmbeddedTriton) -> None:
        processes = family(own)
        assert len(processes) == 4
        mine = {name for name in shared_memory(os.getpid()) if f"_{own.target.http_url[-5:]}_" in name}
        own.stop()
        assert not any(map(runs, processes))
        assert not mine & set(shared_memory(os.getpid()))
        assert not own.alive
        own.stop()  # again does no harm

    @pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
    def test_a_killed_supervisor_takes_the_server_and_its_stubs_along(
        self, own: EmbeddedTriton, kill: signal.Signals
    ) -> None:
        processes = family(own)
        processes[0].send_signal(kill)
        until_ended(processes)

    def test_a_supervisor_killed_under_load_leaves_no_stub_and_no_shared_memory(self, tmp_path: Path) -> None:
        with busy(tmp_path) as server:
            processes = family(server)
            port = server.target.http_url[-5:]
            processes[0].kill()
            until_ended(processes)
            until(lambda: not any(f"_{port}_" in name for name in shared_memory(os.getpid())), 20)

    def test_what_is_left_where_the_guard_was_killed_too_goes_at_the_next_start(self, tmp_path: Path) -> None:
        with busy(tmp_path) as server:
            processes = family(server)
            port = server.target.http_url[-5:]
            guard = next(p for p in processes[1:] if "supervisor.py" in " ".join(p.cmdline()))
            remove_leftovers()
            assert all(map(runs, processes)), "somebody looks after them"
            guard.kill()
            processes[0].kill()
            processes[0].wait()
            assert any(f"_{port}_" in name for name in shared_memory(os.getpid()))
            remove_leftovers()
            until_ended(processes)
            assert not any(f"_{port}_" in name for name in shared_memory(os.getpid()))

    def test_a_killed_server_takes_its_stubs_along_and_the_cause_is_told(self, own: EmbeddedTriton) -> None:
        processes = family(own)
        os.kill(own.pid, signal.SIGKILL)
        until_ended(processes)
        until(lambda: not own.alive, 20)
        assert "SIGKILL" in own.why_dead()

    def test_a_killed_parent_leaves_nothing(self, tmp_path: Path) -> None:
        program = (
            "import sys, time; from pathlib import Path; from bench.server.embedded import start\n"
            f"s = start(Path({str(REPOSITORY)!r}), log=Path({str(tmp_path / 'log')!r}),\n"
            "          models=['null_small'])\n"
            "print(s._supervisor.pid, flush=True); time.sleep(60)"
        )
        parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        supervisor = psutil.Process(int(parent.stdout.readline()))
        processes = [supervisor, *supervisor.children(recursive=True)]
        assert len(processes) == 4
        assert shared_memory(parent.pid)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        until_ended(processes)
        until(lambda: not shared_memory(parent.pid), 20)

    def test_models_may_print_and_are_finalized(self, tmp_path: Path) -> None:
        code = (REPOSITORY / "null_small" / "1" / "model.py").read_text()
        code = code.replace("        return [", "        print('a word', flush=True)\n        return [")
        code += f"\n    def finalize(self):\n        open({str(tmp_path / 'finalized')!r}, 'w')\n"
        repository = model(tmp_path / "models", "talks", code)
        with start(repository, log=tmp_path / "log", models=["talks"]) as server:
            x = np.arange(16, dtype=np.float32).reshape(1, 16)
            assert np.array_equal(ask(server.target, "talks", x=x), x)
        assert "a word" in (tmp_path / "log").read_text()
        assert (tmp_path / "finalized").exists()


@pytest.mark.e2e
class TestFailing:
    def test_taken_ports_are_named_all_at_once_before_anything_starts(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
            http, metrics = a.getsockname()[1], b.getsockname()[1]
            with pytest.raises(
                ServerStartFailed, match=f"--http-port {http} and --metrics-port {metrics}: taken"
            ):
                start(REPOSITORY, log=tmp_path / "log", ports=(http, 0, metrics))
        assert not (tmp_path / "log").exists()

    def test_a_free_port_that_somebody_takes_first_is_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free, tries = embedded._fill_ports, []

        def once_taken(ports: tuple[int, int, int]) -> tuple[int, int, int]:
            http, grpc, metrics = free(ports)
            tries.append(http)
            return (taken.getsockname()[1] if len(tries) == 1 else http), grpc, metrics

        monkeypatch.setattr(embedded, "_fill_ports", once_taken)
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            start(REPOSITORY, log=tmp_path / "log") as server,
        ):
            assert server.alive
            assert len(tries) == 2

    def test_another_server_on_the_port_is_not_taken_for_ours(
        self, triton: EmbeddedTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = int(triton.target.http_url.rpartition(":")[2])
        monkeypatch.setattr(embedded, "_is_taken", lambda _: False)
        with pytest.raises(ServerStartFailed, match=f"127.0.0.1:{other}"):
            start(REPOSITORY, log=tmp_path / "log", ports=(other, 0, 0))

    def test_a_model_that_fails_is_one_sentence_and_leaves_nothing(self, tmp_path: Path) -> None:
        repository = model(tmp_path / "models", "broken", "import nonexistent_thing\n")
        before = psutil.Process().children(recursive=True)
        with pytest.raises(ServerStartFailed, match="imports nonexistent_thing") as caught:
            start(repository, log=tmp_path / "log", models=["broken"])
        assert "\n" not in str(caught.value)
        assert psutil.Process().children(recursive=True) == before

    def test_a_binary_that_is_none_is_told(self, tmp_path: Path) -> None:
        binary = tmp_path / "tritonserver"
        binary.write_bytes(b"\x7fELF")
        binary.chmod(0o755)
        with pytest.raises(ServerStartFailed, match=r"cannot be run .*Exec format error"):
            start(REPOSITORY, log=tmp_path / "log", server=Tritonserver(binary, "a test"))

    def test_a_server_that_never_gets_ready_is_given_up_and_ended(self, tmp_path: Path) -> None:
        binary = tmp_path / "tritonserver"
        binary.write_text("#!/bin/sh\nexec sleep 60\n")
        binary.chmod(0o755)
        told: list[str] = []
        with pytest.raises(ServerStartFailed, match="not ready within 1 s"):
            start(
                REPOSITORY, log=tmp_path / "log", server=Tritonserver(binary, "a test"),
                timeout_s=1, progress=told.append,
            )  # fmt: skip
        assert told == ["starting tritonserver (a test)"]
