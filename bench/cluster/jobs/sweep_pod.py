"""What the master's pod runs: one sweep, and a small server that tells of it and hands over its folder.

    GET  /status?from=N   {"exit_code": null or n, "said": its stderr from byte N on, "next": N}
    GET  /run.tar.gz      the run folder, once the sweep has ended
    POST /interrupt       Ctrl-C for the sweep: it saves what it has and ends
    POST /collected       the folder has arrived: this process ends

Logs are no way out for a folder: nodes rotate them, at 10 MiB if nobody said otherwise.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_UNCOLLECTED_S = 3600.0  # A finished run waits this long for somebody to fetch it.


class PodServer(ThreadingHTTPServer):
    """Holds the sweep's process; `collected` is set when it may all go."""

    daemon_threads = True

    def __init__(self, port: int, sweep: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
        self.sweep, self.folder, self.log = sweep, folder, log
        self.collected = threading.Event()
        super().__init__(("", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: PodServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/status":
            begin = int(parse_qs(parts.query).get("from", ["0"])[0])
            text = self.server.log.read_bytes()[begin:]
            status = {
                "exit_code": self.server.sweep.poll(),
                "said": text.decode(errors="replace"),
                "next": begin + len(text),
            }
            self._answer(200, json.dumps(status).encode())
        elif parts.path == "/run.tar.gz" and self.server.sweep.poll() is not None:
            self._answer(200, packed(self.server.folder))
        else:
            self._answer(404, b"")

    def do_POST(self) -> None:
        if self.path == "/interrupt":
            self.server.sweep.send_signal(signal.SIGINT)
        elif self.path == "/collected":
            self.server.collected.set()
        self._answer(200, b"")

    def log_message(self, *_: object) -> None:
        """The pod's log is the sweep's."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def packed(folder: Path) -> bytes:
    """A run folder as .tar.gz; an empty one where the sweep never made it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            archive.add(path, arcname=path.name)
    return buffer.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Only plain files and folders below `folder`, whatever the archive says."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster.jobs.sweep_pod", description=__doc__)
    parser.add_argument("--arguments", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", required=True)
    parser.add_argument("--locust-master", required=True)
    asked = parser.parse_args(words)
    asked.folder.parent.mkdir(parents=True, exist_ok=True)
    log = asked.folder.parent / "said.log"
    command = [sys.executable, "-m", "bench", "sweep", *json.loads(asked.arguments.read_text())]
    command += ["--workers", asked.workers, "--locust-master", asked.locust_master]
    command += ["--out", str(asked.folder)]
    with log.open("wb") as sink:
        # A wide console: its lines are read elsewhere.
        environment = {**os.environ, "COLUMNS": "150"}
        sweep = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
    server = PodServer(asked.port, sweep, asked.folder, log)
    signal.signal(signal.SIGTERM, lambda *_: server.collected.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return _until_collected(server)


def _until_collected(server: PodServer) -> int:
    while server.sweep.poll() is None and not server.collected.wait(0.5):
        pass
    server.collected.wait(_UNCOLLECTED_S)
    if server.sweep.poll() is None:  # the Job is being deleted
        server.sweep.send_signal(signal.SIGINT)
        try:
            server.sweep.wait(20)
        except subprocess.TimeoutExpired:
            server.sweep.kill()
    sys.stderr.write(server.log.read_text(errors="replace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
