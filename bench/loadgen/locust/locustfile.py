"""What makes a plain locustfile of the Triton users: arguments, and the traffic of each test run.

Nothing here needs `bench sweep`: web UI, headless, --processes and --master/--worker are Locust's own.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from locust import events, stats
from locust.runners import MasterRunner, WorkerRunner

from bench.core import open_files
from bench.core.cell import Protocol
from bench.core.errors import EXIT_WRONG_USE, BenchError, WrongUse
from bench.core.kinds import HEADER, PROXY, SIZE, integer
from bench.core.mistakes import Mistakes
from bench.core.options import OPTIONS
from bench.core.parsing import image_size
from bench.core.target import INSECURE_WARNING, Tls, normalise_url, target_of
from bench.loadgen.locust.connections import ConnectionFactory
from bench.loadgen.locust.request_loop import Session, Tally
from bench.loadgen.locust.users import Traffic, TritonGrpcUser, TritonHttpUser, TritonUser, user_class
from bench.loadgen.locust.work_order import WorkOrder
from bench.server.control import Triton

__all__ = ["TritonGrpcUser", "TritonHttpUser", "register"]

DEFAULT_HOST = "http://127.0.0.1:8000"
_LOOPBACK = "127.0.0.1"
_log = logging.getLogger(__name__)


def register() -> dict[str, type[TritonUser]]:
    """Hook the arguments and the traffic into Locust; call once, from a locustfile.

    Returns the user class of each protocol by its name. Locust runs those in the locustfile's namespace.
    """
    open_files.raise_limit()
    events.init_command_line_parser.add_listener(_add_arguments)
    events.init.add_listener(_refuse)
    events.test_start.add_listener(_prepare)
    # Locust rounds to whole milliseconds below 100 ms; three digits cost it nothing.
    stats.bucket_response_time = lambda milliseconds: float(f"{milliseconds:.3g}")
    users = {user.__name__: user for user in map(user_class, Protocol)}
    for user in users.values():
        user.host = user.host or DEFAULT_HOST
    return users


def _add_arguments(parser: Any, **_: Any) -> None:
    group = parser.add_argument_group("Triton")
    group.add_argument("--model", default="python_vit", env_var="TRITON_MODEL", help="Model to call")
    group.add_argument("--batch", default="1", env_var="TRITON_BATCH", help="Images per request")
    group.add_argument(
        "--protocol",
        choices=[*Protocol, "both"],
        default="both",
        env_var="TRITON_PROTOCOL",
        help="Which users to run; both: as many of each protocol",
    )
    group.add_argument(
        "--grpc-host",
        default="",
        env_var="TRITON_GRPC_HOST",
        help="host:port of Triton's gRPC endpoint (default: the HTTP host, port + 1)",
    )
    # Locust's own default lets anybody on the network start load from here.
    parser.set_defaults(web_host=_LOOPBACK)
    group.add_argument("--image", default="224x224", env_var="TRITON_IMAGE", help="Image size, HEIGHTxWIDTH")
    _add_access(group)


def _add_access(group: Any) -> None:
    """What lets requests in, as `bench sweep` has it. The web form shows no options of a group."""
    group.add_argument(
        "--header",
        action="append",
        default=[],
        help="Sent with each request; the value may be @env:NAME or @file:PATH",
    )
    for name in ("ca", "cert", "key", "proxy", "max_answer"):
        option = OPTIONS[name]
        group.add_argument(
            option.long,
            default="",
            env_var=f"TRITON_{name.upper()}",
            help=option.help.rstrip("."),
        )
    group.add_argument("--insecure", action="store_true", help=OPTIONS["insecure"].help.rstrip("."))


def _refuse(environment: Any, runner: Any, **_: Any) -> None:
    """Without a web form nobody can mend a mistake: end before anything is spawned.

    A master cannot end here: workers that it forked and that are not connected yet would outlive it.
    """
    options = environment.parsed_options
    if not options.headless or isinstance(runner, MasterRunner | WorkerRunner):
        return
    try:
        _traffic(options, environment.host or DEFAULT_HOST, _wanted(options))
    except (BenchError, ValueError) as error:
        _log.error("%s", error)
        sys.exit(getattr(error, "exit_code", EXIT_WRONG_USE))


def _wanted(options: Any) -> list[Protocol]:
    return list(Protocol) if options.protocol == "both" else [Protocol(options.protocol)]


def _prepare(environment: Any, **_: Any) -> None:
    """Before each test run: who runs, and what they send."""
    options = environment.parsed_options
    wanted = _wanted(options)
    for protocol in Protocol:
        user_class(protocol).weight = int(protocol in wanted)
    if isinstance(environment.runner, MasterRunner) and not options.processes:
        return  # its workers call this too, and perhaps only they reach the target
    try:
        host = _host(environment)
        environment.triton = _traffic(options, host, wanted)
        environment.host = normalise_url(host)  # Locust shows it; a password in it is in a header by now
    except (BenchError, ValueError) as error:
        _log.error("%s", error)
        environment.process_exit_code = getattr(error, "exit_code", EXIT_WRONG_USE)
        runner = environment.runner
        gevent.spawn(runner.quit if options.headless else runner.stop)  # not from within its own start


def _traffic(options: Any, host: str, wanted: list[Protocol]) -> Traffic:
    mistakes = Mistakes()
    batch = mistakes.read("--batch", str(options.batch), integer(1, 4096).parse, 1)
    height, width = mistakes.read("--image", options.image, image_size, (224, 224))
    headers = [
        mistakes.read("--header", HEADER.metavar, partial(_header, text), ("", "")) for text in options.header
    ]
    most_bytes = mistakes.read("--max-answer", options.max_answer, _size, None)
    mistakes.check()
    ca, cert, key = (_absolute(path) for path in (options.ca, options.cert, options.key))
    tls = Tls(ca, cert, key, options.insecure)
    if tls.insecure:
        _log.warning("%s", INSECURE_WARNING)
    proxy = PROXY.parse(options.proxy) if options.proxy else ""
    target = target_of(host, options.grpc_host or None, None, headers, tls, proxy)
    triton = Triton(target)
    metadata, config = triton.metadata(options.model), triton.config(options.model)
    triton.close()
    limit = max(1, int(config.get("max_batch_size", 0)))
    if batch > limit:
        raise WrongUse([f"--batch {batch}: over the model's maximum; allowed: 1 to {limit}"])
    connections = {
        protocol: ConnectionFactory(
            WorkOrder(
                targets=(target,),
                protocol=protocol,
                model=options.model,
                metadata=metadata,
                max_batch=int(config.get("max_batch_size", 0)),
                batch=batch,
                max_answer_bytes=most_bytes,
                image_height=height,
                image_width=width,
            )
        )
        for protocol in wanted
    }
    name = f"{options.model} batch {batch}"
    return Traffic(connections, _open_session(), name, whole_trial=False)


def _header(text: str, _shown: str) -> tuple[str, str]:
    """The message of a mistake shows no value, which may be secret."""
    return HEADER.parse(text)


def _size(text: str) -> int | None:
    return SIZE.parse(text) if text else None


def _host(environment: Any) -> str:
    """With the password that was typed in it, which Locust is not shown again."""
    typed = environment.parsed_options.host or ""
    shown = environment.host or DEFAULT_HOST
    return typed if typed and normalise_url(typed) == shown else shown


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _open_session() -> Session:
    session = Session(recorder=Tally())  # Locust keeps the statistics, and nobody reads the requests
    session.gate.set()
    return session
