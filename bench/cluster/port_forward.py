"""A pod's ports as ports of this host, through the API server: the way in from outside a cluster.

Kubernetes' protocol over a websocket, one a connection (`v4.channel.k8s.io`): each binary message begins
with its channel, 0 for data and 1 for the pod's error; the first message of a channel holds the port
again, two bytes. The `kubernetes` package opens the websocket (TLS, proxies); the relay is our own,
since its copies all data that waits at every step, which tensors make slow.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import websocket

from bench.cluster.api import Cluster
from bench.cluster.pods import Pod
from bench.core.errors import ClusterError
from bench.core.target import FORWARDED, PODS, Target

HOST = "127.0.0.1"
CHANNELS = "v4.channel.k8s.io"
REACH_TIMEOUT_S = 1.0
_DATA, _ERROR = 0, 1
_CHUNK = 1 << 18

WebSocket = Any  # websocket.WebSocket, of a package that the kubernetes one needs; half of it is untyped
Dial = Callable[[int], WebSocket]  # to one port of the pod


def reachable(host: str, port: int, timeout_s: float = REACH_TIMEOUT_S) -> bool:
    """Whether a TCP connection goes there directly."""
    try:
        with socket.create_connection((host, port), timeout_s):
            return True
    except OSError:
        return False


def dial_pod(cluster: Cluster, pod: str) -> Dial:
    """Asks the API server for one port of a pod. The function raises ClusterError with its reason."""
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/portforward"
    root = cluster.connection.server.replace("http", "ws", 1)

    def dial(port: int) -> WebSocket:
        from kubernetes.stream.ws_client import create_websocket

        proof = {name.lower(): value for name, value in cluster.connection.credentials().items()}
        headers = {**proof, "sec-websocket-protocol": CHANNELS}
        configuration = cluster.connection.client.configuration
        try:
            return create_websocket(configuration, f"{root}{path}?ports={port}", headers)
        except (websocket.WebSocketException, OSError) as error:
            raise ClusterError(_refused(pod, port, error), status=_status(error)) from error

    return dial


def reach_pod(
    cluster: Cluster, pod: Pod, forwards: ExitStack, headers: tuple[tuple[str, str], ...] = ()
) -> Target:
    """A pod's three ports: at its own address, or forwarded from ports of this host until `forwards` ends.

    Raises ClusterError where the API server does not forward to it.
    """
    ports = (pod.http_port, pod.grpc_port, pod.metrics_port)
    host, local, way = pod.ip, dict(zip(ports, ports, strict=True)), PODS
    if not reachable(pod.ip, pod.http_port):
        dial = dial_pod(cluster, pod.name)
        dial(pod.http_port).close()  # a refusal is better told here than as broken connections
        host, way = HOST, FORWARDED
        local = dict(forwards.enter_context(PortForward(dial, ports)).local)
    http, grpc, metrics = (f"{bracketed(host)}:{local[port]}" for port in ports)
    return Target(f"http://{http}", grpc, f"http://{metrics}/metrics", headers, name=pod.name, way=way)


def bracketed(host: str) -> str:
    """A host as URLs have it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


class PortForward:
    """Listens on a port of this host for each of a pod's; a context manager.

    Each connection made there is one to the pod. `error`: what the pod last said of one that failed.
    """

    def __init__(self, dial: Dial, ports: Sequence[int]) -> None:
        self.error = ""
        self._dial = dial
        self._closing = False
        self._open: set[socket.socket] = set()
        self._listeners = {port: socket.create_server((HOST, 0), backlog=256) for port in ports}
        for port, listener in self._listeners.items():
            _thread(self._accept, listener, port)

    @property
    def local(self) -> Mapping[int, int]:
        """The pod's port -> the one here."""
        return {port: listener.getsockname()[1] for port, listener in self._listeners.items()}

    def __enter__(self) -> PortForward:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection."""
        self._closing = True
        for listener in self._listeners.values():
            _shut(listener)
        for client in tuple(self._open):
            _shut(client)

    def _accept(self, listener: socket.socket, port: int) -> None:
        while not self._closing:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(client)
            _thread(self._serve, client, port)

    def _serve(self, client: socket.socket, port: int) -> None:
        try:
            pod = self._dial(port)
        except ClusterError as error:
            self.error = str(error)
            self._drop(client)
            return
        lock = threading.Lock()  # one TLS connection must not be read and written at once
        _thread(self._upwards, client, pod, pod.sock, lock)
        try:
            for data in _received(pod, lock):
                client.sendall(data)
        except (websocket.WebSocketException, OSError):
            pass  # either side has gone; the other hears of it below
        except ConnectionFailed as error:
            self.error = str(error)
        finally:
            self._drop(client)
            pod.shutdown()

    def _upwards(
        self, client: socket.socket, pod: WebSocket, below: socket.socket, lock: threading.Lock
    ) -> None:
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while data := client.recv(_CHUNK):
                with lock:
                    pod.send_binary(bytes((_DATA,)) + data)
        # The protocol knows no half-closed connection: the client has gone.
        _shut(client)
        with contextlib.suppress(OSError):
            below.shutdown(socket.SHUT_RDWR)

    def _drop(self, client: socket.socket) -> None:
        self._open.discard(client)
        _shut(client)


class ConnectionFailed(Exception):
    """The pod's end of a connection could not be made."""


def _received(pod: WebSocket, lock: threading.Lock) -> Iterator[memoryview]:
    """The data of one connection. Raises ConnectionFailed with the pod's own words."""
    begun: set[int] = set()
    while True:
        _wait_readable(pod.sock)
        with lock:
            opcode, data = pod.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return
        if opcode != websocket.ABNF.OPCODE_BINARY or not data:
            continue
        channel = data[0]
        if channel not in begun:
            begun.add(channel)  # the port's number, which we know
        elif channel == _ERROR:
            raise ConnectionFailed(data[1:].decode(errors="replace").strip())
        else:
            yield memoryview(data)[1:]


def _wait_readable(sock: Any) -> None:
    if not (isinstance(sock, ssl.SSLSocket) and sock.pending()):
        waiting = select.poll()  # select() ends at file descriptor 1023
        waiting.register(sock, select.POLLIN)
        waiting.poll()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # wakes whoever waits on it; close alone does not
    sock.close()


def _thread(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True, name="bench-forward").start()


def _status(error: Exception) -> int:
    return int(getattr(error, "status_code", 0) or 0)


def _refused(pod: str, port: int, error: Exception) -> str:
    match _status(error):
        case 401:
            why = "the API server does not know you: log in again"
        case 403:
            why = "not allowed: ask for get and create on pods/portforward, or run inside the cluster"
        case 404:
            why = "the pod is gone, or no kubelet serves it"
        case 0:
            why = f"no answer ({type(error).__name__}): check that `kubectl port-forward` works"
        case status:
            why = f"status {status}: check that `kubectl port-forward` works"
    return f"Port {port} of pod {pod} cannot be forwarded: {why}."
