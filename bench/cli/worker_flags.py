"""Who makes the load, from flags: processes of the engine's own, or workers of Locust's master."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.core.cell import SharedMemory
from bench.core.mistakes import Mistakes
from bench.core.spec import SweepSpec
from bench.loadgen.locust.local_workers import LocalWorkers
from bench.loadgen.locust.remote_workers import RemoteWorkers
from bench.loadgen.locust.worker_pool import WorkerPool

MASTER_PORT = 5557  # Locust's own


def crew_of(given: Mapping[str, Any], spec: SweepSpec, flags: Mistakes) -> Callable[[Path], WorkerPool]:
    """What makes the crew, once there is a log to write to. Mistakes are left in `flags`."""
    address = _address(given, flags)
    in_cluster = bool(given.get("in_cluster"))
    named = given.get("mlservice") or given.get("deploy")
    if in_cluster and not (given.get("url") or named):
        flags.wrong(
            "--in-cluster", "", "needs --mlservice, --deploy, or --url with the address in the cluster"
        )
    if given.get("load_image") and not in_cluster:
        flags.wrong("--load-image", given["load_image"], "goes with --in-cluster")
    if given.get("load_account") and not (in_cluster and named):
        flags.wrong(
            "--load-account", given["load_account"], "goes with --in-cluster and --mlservice or --deploy"
        )
    if in_cluster and given.get("resume"):
        flags.wrong("--resume", "", "not with --in-cluster: the pod has no folder to go on with")
    if in_cluster and given.get("header"):
        flags.wrong("--header", "NAME:VALUE", "would lie in the cluster in the clear; not with --in-cluster")
    if not given.get("workers"):
        for flag, is_given in (("--in-cluster", in_cluster), ("--locust-master", address is not None)):
            if is_given:
                flags.wrong(flag, given.get("locust_master") or "", "needs --workers N: how many to wait for")
        return LocalWorkers
    if given.get("processes", "auto") != "auto":
        flags.wrong("--workers", str(given["workers"]), "goes without --processes: a worker is a process")
    if in_cluster and address is not None:
        flags.wrong("--in-cluster", "", "goes without --locust-master: the master runs in the cluster too")
    if (in_cluster or address is not None) and SharedMemory.SYSTEM in spec.shared_memory:
        flags.wrong("--shared-memory", "system", "needs workers on the server's host: use --processes")
    return partial(RemoteWorkers, spec.workers, address)


def _address(given: Mapping[str, Any], flags: Mistakes) -> tuple[str, int] | None:
    text = given.get("locust_master")
    return flags.read("--locust-master", text, master_address, None) if text else None


def master_address(text: str) -> tuple[str, int]:
    """HOST[:PORT]; [ADDRESS]:PORT for IPv6 is not Locust's."""
    host, _, port = text.partition(":")
    if not host or not host.isprintable() or " " in host:
        raise ValueError("give HOST or HOST:PORT, e.g. 10.0.0.5:5557")
    if (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)) or text.endswith(":"):
        raise ValueError("the port is a number from 1 to 65535")
    return host, int(port or MASTER_PORT)
