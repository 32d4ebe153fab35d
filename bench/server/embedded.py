"""A real tritonserver on this machine, on loopback, in explicit model control: started, restarted, ended.

Binaries come from `--tritonserver`, from $PATH, or from the nvidia-pytriton package, of which only the
server, the Python backend and their libraries are used.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil

from bench.core.errors import ServerStartFailed
from bench.core.target import Target
from bench.server.control import Triton
from bench.server.leftovers import remove_leftovers
from bench.server.log_diagnosis import explain, is_port_taken, known_cause

HOST = "127.0.0.1"
START_TIMEOUT_S = 120.0
START_TRIES = 3
_DYING_S = 15.0  # A crash writes a core dump and ends its stubs first. A server that takes longer hangs.
_KINDS = ("http", "grpc", "metrics")
_PORT_TRIES = 3
_SUPERVISOR = Path(__file__).with_name("supervisor.py")


@dataclass(frozen=True, slots=True)
class Tritonserver:
    """A binary and what it needs around it. `backends` None: where the binary looks by itself."""

    binary: Path
    origin: str
    backends: Path | None = None
    environment: tuple[tuple[str, str], ...] = ()


def find_tritonserver(explicit: Path | None = None) -> Tritonserver:
    """`--tritonserver`, then $PATH, then nvidia-pytriton's.

    Raises ServerStartFailed saying what to install.
    """
    if explicit is not None:
        if not (explicit.is_file() and os.access(explicit, os.X_OK)):
            raise ServerStartFailed(
                f"--tritonserver {explicit} is no executable file: name the binary itself."
            )
        return Tritonserver(explicit.resolve(), "given with --tritonserver")
    on_path = shutil.which("tritonserver")
    if on_path:
        return Tritonserver(Path(on_path), "found on $PATH")
    package = find_spec("pytriton")
    if package is None or package.origin is None:
        raise ServerStartFailed(
            "No tritonserver here: install one (pip install 'triton-bench[serve]'), name it with "
            "--tritonserver PATH, or measure one that runs elsewhere with --url."
        )
    return _from_pytriton(Path(package.origin).parent)


def _from_pytriton(package: Path) -> Tritonserver:
    """Lay out a folder in the user's cache: the backend beside the stub of the running Python."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    files = package / "tritonserver"
    stub = files / "python_backend_stubs" / minor / "triton_python_backend_stub"
    if not stub.exists():
        raise ServerStartFailed(
            f"nvidia-pytriton has no stub for Python {minor}: use Python 3.11, 3.12 or 3.13, or --url."
        )
    release = version("nvidia-pytriton")
    folder = cache_folder() / f"pytriton-{release}-py{minor}" / "backends"
    backend = folder / "python"
    backend.mkdir(parents=True, exist_ok=True)
    for source in (files / "backends" / "python").iterdir():
        _link(source, backend / source.name)
    _link(stub, backend / stub.name)
    libraries = f"{package.parent}/nvidia_pytriton.libs"
    # The stub must find the libpython that owns this interpreter's standard library before any other.
    environment = (
        _first("LD_LIBRARY_PATH", sysconfig.get_config_var("LIBDIR"), libraries),
        _first("PATH", str(Path(sys.executable).parent)),
        _first("PYTHONPATH", sysconfig.get_path("purelib")),
    )
    _check_stub(backend / stub.name, environment)
    return Tritonserver(files / "bin" / "tritonserver", f"nvidia-pytriton {release}", folder, environment)


def _first(name: str, *own: str | None) -> tuple[str, str]:
    """Ours before what is set already: in many containers only LD_LIBRARY_PATH leads to the GPU's driver."""
    return name, os.pathsep.join(filter(None, [*own, os.environ.get(name)]))


def _check_stub(stub: Path, environment: tuple[tuple[str, str], ...]) -> None:
    """A stub that misses a library keeps Triton waiting for good. Without arguments a sound one just ends."""
    tried = subprocess.run([stub], env={**os.environ, **dict(environment)}, capture_output=True, timeout=30)
    if tried.returncode == 127:
        raise ServerStartFailed(explain(tried.stderr.decode(errors="replace")))


def cache_folder() -> Path:
    """Where the suite keeps what can be made again."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "triton-bench"


def _link(source: Path, at: Path) -> None:
    if at.is_symlink() and at.readlink() == source:
        return
    part = at.with_name(f".{at.name}.{os.getpid()}")
    part.symlink_to(source)
    part.replace(at)


@dataclass(slots=True)
class EmbeddedTriton:
    """A running server. A context manager: it is gone when the block ends."""

    target: Target
    pid: int
    log: Path
    ports: frozenset[int]
    _supervisor: subprocess.Popen[bytes] = field(repr=False)

    def __enter__(self) -> EmbeddedTriton:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return self._supervisor.poll() is None

    def why_dead(self) -> str:
        """One sentence from the server's log."""
        return explain(_text(self.log), self._supervisor.poll())

    def ends_within(self, seconds: float) -> bool:
        """Whether it is gone by then, stubs and all: a process that dumps its memory takes a while."""
        try:
            self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def listens(self) -> bool:
        """Whether the server itself holds all three ports."""
        try:
            open_now = psutil.Process(self.pid).net_connections("tcp") if self.pid else []
        except psutil.Error:
            return False  # it ended
        held = {c.laddr.port for c in open_now if c.status == psutil.CONN_LISTEN}
        return self.ports <= held

    def stop(self) -> None:
        """Returns when server, stubs and shared memory are gone."""
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
        self._supervisor.wait()


def start(
    repository: Path,
    *,
    log: Path,
    server: Tritonserver | None = None,
    ports: tuple[int, int, int] = (0, 0, 0),
    models: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
    timeout_s: float = START_TIMEOUT_S,
) -> EmbeddedTriton:
    """Start a server on loopback; `ports` (HTTP, gRPC, metrics), 0 for any free one.

    Raises ServerStartFailed with the cause from the log.
    """
    server = server or find_tritonserver()
    _refuse_taken(ports)
    progress(f"starting tritonserver ({server.origin})")
    for attempt in range(_PORT_TRIES):
        triton = _launch(server, repository, log, _fill_ports(ports), models)
        try:
            _wait_until_live(triton, progress, timeout_s)
        except BaseException:
            triton.stop()
            # Somebody took a port that was free a moment ago: the next attempt takes others.
            if is_port_taken(_text(log)) and attempt + 1 < _PORT_TRIES:
                _refuse_taken(ports)
                continue
            raise
        return triton
    raise AssertionError("unreachable: the last attempt returns or raises")


def _launch(
    server: Tritonserver, repository: Path, log: Path, ports: tuple[int, int, int], models: Sequence[str]
) -> EmbeddedTriton:
    remove_leftovers()
    http, grpc, metrics = ports
    prefix = f"bench_{os.getpid()}_{http}_"
    command = [
        str(server.binary),
        f"--model-repository={repository}",
        *([f"--backend-directory={server.backends}"] if server.backends else []),
        *(f"--{kind}-address={HOST}" for kind in _KINDS),
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        # Guessing a configuration starts one more stub per load; ours are complete.
        "--disable-auto-complete-config",
        "--metrics-interval-ms=100",
        # Enough to end models properly; connections left open are waited for a second at a time.
        "--exit-timeout-secs=3",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
    ]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        supervisor = subprocess.Popen(
            [sys.executable, "-S", "-E", str(_SUPERVISOR), prefix, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            env={**os.environ, **dict(server.environment)},
            start_new_session=True,  # it ends everything in it by the number of the session
        )
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline() or 0)
    supervisor.stdout.close()
    target = Target(
        f"http://{HOST}:{http}", f"{HOST}:{grpc}", f"http://{HOST}:{metrics}/metrics", pid=pid or None
    )
    return EmbeddedTriton(target, pid, log, frozenset(ports), supervisor)


def _wait_until_live(triton: EmbeddedTriton, progress: Callable[[str], None], timeout_s: float) -> None:
    control = Triton(triton.target)
    began = time.monotonic()
    told = 0
    try:
        # Whoever else holds the port would answer too, so the server must hold its ports itself.
        while not (triton.listens() and control.ready()):
            seconds = time.monotonic() - began
            if not triton.alive:
                raise ServerStartFailed(f"{triton.why_dead()} Its log: {triton.log}.")
            if seconds > timeout_s:
                cause = known_cause(_text(triton.log))
                raise ServerStartFailed(
                    f"tritonserver was not ready within {timeout_s:g} s. {cause} Its log: {triton.log}."
                )
            if seconds > told + 5:
                told = int(seconds)
                progress(f"tritonserver: not ready after {told} s")
            time.sleep(0.05)  # readiness has no event to wait for
    finally:
        control.close()


def _refuse_taken(ports: tuple[int, int, int]) -> None:
    """Triton would find out one at a time, and only after it has said that it started."""
    taken = [f"--{kind}-port {port}" for kind, port in zip(_KINDS, ports, strict=True) if _is_taken(port)]
    if taken:
        raise ServerStartFailed(
            f"{' and '.join(taken)}: taken already; give another port, or 0 for any free one."
        )


def _is_taken(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just left is free, as for Triton
        try:
            sock.bind((HOST, port))
        except OSError:
            return True
    return False


def _text(log: Path) -> str:
    return log.read_text(errors="replace")


def _fill_ports(asked: tuple[int, int, int]) -> tuple[int, int, int]:
    """Free ports for zeros. All sockets are held until the last is chosen, so they differ."""
    sockets = [socket.socket() for port in asked if port == 0]
    try:
        for sock in sockets:
            sock.bind((HOST, 0))
        free = iter([sock.getsockname()[1] for sock in sockets])
        http, grpc, metrics = (port or next(free) for port in asked)
        return http, grpc, metrics
    finally:
        for sock in sockets:
            sock.close()


class OwnTriton(Triton):
    """The control API of a server of ours. `target` changes with a restart, which may be on other ports."""

    def __init__(self, start: Callable[[], EmbeddedTriton], say: Callable[[str], None]) -> None:
        self._start, self._say = start, say
        self._running = start()
        super().__init__(self._running.target)

    def close(self) -> None:
        """Ends the server, too."""
        super().close()
        self._running.stop()

    def lost(self) -> str:
        if self._running.alive and self.live():
            return ""
        if not self._running.ends_within(_DYING_S):
            return "tritonserver ran, but answered nothing any more: its log may tell what it waits for."
        return self._running.why_dead()

    def revive(self) -> str:
        """Raises ServerStartFailed when it dies at its start every time. Its log so far is kept beside."""
        why = self.lost()
        if why:
            self._running.stop()
            _set_aside(self._running.log)
            self._say("tritonserver died: starting it again")
            self._running = self._started()
            self.target = self._running.target
        return why

    def _started(self) -> EmbeddedTriton:
        for _ in range(START_TRIES - 1):
            with suppress(ServerStartFailed):
                return self._start()
        try:
            return self._start()
        except ServerStartFailed as error:
            raise ServerStartFailed(
                f"tritonserver died, and {START_TRIES} times did not start again: {error}"
            ) from error


def _set_aside(log: Path) -> None:
    """tritonserver.log -> tritonserver-1.log, -2...: the next start writes its own."""
    names = (log.with_name(f"{log.stem}-{n}{log.suffix}") for n in itertools.count(1))
    log.rename(next(path for path in names if not path.exists()))
