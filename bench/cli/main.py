"""Verbs and flags. Everything a verb does lives elsewhere; errors become exit codes here."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bench import __version__
from bench.cli.flags import DEFAULT_BATCH
from bench.cli.help_sections import Sectioned
from bench.cli.lazy_import import verb
from bench.cli.options.ab_test import against_options, explicit_flags, is_compared
from bench.cli.options.ceiling import ceiling, ceiling_option
from bench.cli.options.cluster import fleet_options
from bench.cli.options.deploy import deploy, undeploy
from bench.cli.options.report import compare, report
from bench.cli.options.tune import tune_command
from bench.cli.options.vit import variant_options
from bench.cli.verbs.worker import worker, worker_options
from bench.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WRONG_USE, BenchError, WrongUse

Command = TypeVar("Command", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
_PORT = click.IntRange(0, 65535)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # errors that name no file


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


target_options: Callable[[Command], Command] = _together(
    click.option("--url", help="HTTP address of a Triton already running; without it, one is started here."),
    click.option("--grpc-url", help="Its gRPC address, host:port.  [default: the HTTP host, port + 1]"),
    click.option("--metrics-url", help="Its metrics address.  [default: the HTTP host, port + 2, /metrics]"),
    click.option(
        "--header", multiple=True, metavar="NAME:VALUE", help="Sent with every request; never stored."
    ),
)
embedded_options: Callable[[Command], Command] = _together(
    click.option("--model", default="python_vit", help="Model to measure; calibration: null_vit, delay..."),
    click.option(
        "--vit",
        default="auto",
        metavar="WHICH",
        help="Weights of python_vit: auto, base, tiny (random weights of that size), a snapshot folder, "
        "or a Hugging Face name.",
    ),
    click.option("--tritonserver", type=click.Path(path_type=Path), help="The binary to start."),
    click.option(
        "--repository", type=click.Path(path_type=Path), help="Model repository.  [default: the one shipped]"
    ),
)
payload_options: Callable[[Command], Command] = _together(
    click.option("--image", default="224x224", metavar="HxW", help="Size of the seeded images."),
    click.option("--seed", default="1", help="Of arrivals and of the order of trials."),
    click.option("--timeout", default="60s", help="After which a request counts as failed."),
)


@click.group(context_settings=CONTEXT, epilog=_examples(
    "bench sweep --batch 1,8,32",
    "bench sweep --url http://127.0.0.1:8000 --batch 1,8 --concurrency 1,4,16",
    "bench report reports/mine",
    "bench doctor",
))  # fmt: skip
@click.version_option(__version__, prog_name="bench")
def bench() -> None:
    """Measure models served on Triton: throughput and latency against batch, instances and load.

    Talk goes to stderr, results to stdout. Exit codes: 0 done, all valid; 1 a gate or SLO was missed;
    2 wrong use; 3 measured, but inconclusive or some cell INVALID; 4 the target or a tool failed;
    130 interrupted, what was measured is saved.

    Shell completion: eval "$(_BENCH_COMPLETE=bash_source bench)" (or zsh_source, fish_source).
    """


@bench.command(cls=Sectioned, epilog=_examples(
    "bench sweep --batch 1,8,32",
    "bench sweep --batch 1,8 --instances 1,2 --concurrency 1,4,16 --protocol http,grpc --repeats 5",
    "bench sweep --rate 5/s,10/s --slo p99=500ms --repeats 3",
    "bench sweep --precision fp32,bf16 --wire fp32,uint8 --output pooler_output --batch 1,8",
    "bench sweep --url 127.0.0.1:8000 --model my_model --batch 1,8 --dry-run",
    "bench sweep --workers 8 --in-cluster --url http://vit.my-namespace --load-image registry/triton-bench",
    "bench sweep --mlservice vit --batch 1,8 --replicas 1,2 --via platform,pod",
    "bench sweep --deploy --triton-image registry/triton-vit:1 --gpu 1 --batch 1,8 --instances 1,2",
    "bench sweep --against reports/main --fail-if 'p99>+5%'",
    "bench sweep --batch 8 --variant old= --variant new=precision=bf16,instances=2 --repeats 5",
))  # fmt: skip
@click.option("--batch", default=DEFAULT_BATCH, help="Images a request.")
@click.option("--instances", help="Model instances, changed live.  [default: as the model's file says]")
@click.option("--max-batch", help="Triton's max_batch_size, changed live.")
@click.option("--max-queue-delay", help="Dynamic batcher: off, 0, 1ms...  [default: as the file says]")
@variant_options
@click.option("--parameter", multiple=True, metavar="NAME=A,B", help="Model parameter as a further axis.")
@click.option("--concurrency", help="Requests always in flight (closed loop).  [default: 4]")
@click.option("--rate", help="Arrivals a second (open loop): 50/s,100/s.")
@click.option("--arrival", default="poisson", help="poisson or constant, for --rate.")
@click.option(
    "--scenario", help="Set the load as MLPerf LoadGen does: single-stream, multi-stream, server, offline."
)
@click.option("--protocol", help="http, grpc, or both.  [default: http; with --deploy both]")
@click.option("--engine", default="locust", help="locust, perf_analyzer, or both.")
@click.option("--shared-memory", default="none", help="none, system, cuda: how tensors reach the server.")
@target_options
@fleet_options
@embedded_options
@payload_options
@click.option("--duration", default="5s", help="Of one trial's window; auto: until its interval is tight.")
@click.option("--warmup", default="1s", help="At the trial's own load, before the window.")
@click.option("--repeats", help="Trials of each cell; intervals need 3.  [default: 3]")
@click.option("--quick", is_flag=True, help="Each cell once: no intervals, figures are indicative.")
@click.option(
    "--slo",
    default="",
    show_default=False,
    metavar="TERMS",
    help="For goodput and the verdict: p99=100ms,errors=0.1%.",
)
@click.option("--check", default="1%", help="Share of answers whose values are compared with a reference.")
@click.option("--processes", default="auto", help="Load-generating processes.")
@worker_options
@click.option("--perf-analyzer", type=click.Path(path_type=Path), help="The perf_analyzer binary to use.")
@ceiling_option
@against_options
@click.option("--name", help="Of the run.  [default: model and time]")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: reports/NAME]")
@click.option("--force", is_flag=True, help="Replace the run that is in the folder.")
@click.option("--resume", is_flag=True, help="Go on with the run that is in the folder.")
@click.option("--dry-run", is_flag=True, help="Print cells, reloads and the time it would take.")
@click.option("--json", "as_json", is_flag=True, help="Print the cells as JSON on stdout.")
def sweep(**given: Any) -> None:
    """Measure every combination of batch, instances, load and protocol, and write a report."""
    if is_compared(given):
        sys.exit(verb("cli.verbs.ab_test", "run")(given, _command_line(), explicit_flags()))
    sys.exit(verb("cli.verbs.sweep", "sweep")(given, _command_line()))


@bench.command(cls=Sectioned, epilog=_examples(
    "bench search --slo p99=100ms", "bench search --slo p90=500ms,errors=0.1% --batch 1,8 --instances 1,2",
    "bench search --slo p99=100ms --mlservice vit --replicas 1,2 --workers 4",
))  # fmt: skip
@click.option("--slo", required=True, metavar="TERMS", help="p99=100ms,errors=0.1%: what has to hold.")
@click.option("--batch", default="1", help="Images a request.")
@click.option("--instances", help="Model instances, changed live.  [default: as the model's file says]")
@click.option("--max-batch", help="Triton's max_batch_size, changed live.")
@click.option("--max-queue-delay", help="Dynamic batcher: off, 0, 1ms...  [default: as the file says]")
@variant_options
@click.option("--parameter", multiple=True, metavar="NAME=A,B", help="Model parameter as a further axis.")
@click.option("--protocol", default="http", help="http, grpc, or both.")
@click.option("--shared-memory", default="none", help="none or system.")
@target_options
@fleet_options
@embedded_options
@payload_options
@click.option("--warmup", default="1s", help="Of each probe, at its own rate.")
@click.option(
    "--longest-probe", default="60s", help="A probe is as long as the percentile needs, up to this."
)
@click.option("--check", default="1%", help="Share of answers whose values are compared with a reference.")
@click.option("--processes", default="auto", help="Load-generating processes.")
@worker_options
@click.option("--name", help="Of the run.  [default: model and time]")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: reports/NAME]")
@click.option("--force", is_flag=True, help="Replace the run that is in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the answers as JSON on stdout.")
def search(**given: Any) -> None:
    """Find the highest Poisson arrival rate that holds an SLO; every probe is in the report."""
    fixed = {"duration": "2s", "rate": None, "arrival": "poisson", "engine": "locust", "resume": None}
    sys.exit(verb("cli.verbs.search", "run")({**fixed, **given}, _command_line()))


@bench.command(epilog=_examples("bench serve", "bench serve --vit base --http-port 8000"))
@embedded_options
@click.option("--instances", default=1, type=click.IntRange(1), help="Of the model.")
@click.option("--http-port", default=8000, type=_PORT, help="0: any free one.")
@click.option("--grpc-port", default=8001, type=_PORT, help="0: any free one.")
@click.option("--metrics-port", default=8002, type=_PORT, help="0: any free one.")
@click.option("--log", type=click.Path(path_type=Path), help="The server's log.  [default: a scratch file]")
def serve(**given: Any) -> None:
    """Start a Triton on this machine, load the model, and keep it until Ctrl-C."""
    sys.exit(verb("cli.verbs.report", "serve")(given))


@bench.command(epilog=_examples(
    "bench infer --url 127.0.0.1:8000", "bench infer --url 127.0.0.1:8000 --protocol grpc --image cat.jpg",
))  # fmt: skip
@target_options
@embedded_options
@click.option("--protocol", default="http", help="http or grpc.")
@click.option("--image", help="A picture, or HxW of a seeded one.  [default: 224x224]")
@click.option("--timeout", default="60s")
@click.option("--json", "as_json", is_flag=True, help="Print outputs' shapes and the time as JSON.")
def infer(**given: Any) -> None:
    """Send one request and print the tensor that comes back, its shape, and the time."""
    sys.exit(verb("cli.verbs.report", "infer")(given))


@bench.command(epilog=_examples("bench doctor", "bench doctor --json"))
@click.option("--tritonserver", type=click.Path(path_type=Path))
@click.option("--perf-analyzer", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True)
def doctor(tritonserver: Path | None, perf_analyzer: Path | None, as_json: bool) -> None:
    """What this machine can do, and what to do about the rest."""
    sys.exit(verb("cli.verbs.doctor", "run")(tritonserver, perf_analyzer, as_json=as_json))


bench.add_command(report)
bench.add_command(compare)
bench.add_command(worker)
bench.add_command(deploy)
bench.add_command(undeploy)
bench.add_command(ceiling)
bench.add_command(tune_command(target_options, embedded_options, payload_options))


@bench.group()
def setup() -> None:
    """Fetch tools that pip cannot install by itself."""


@setup.command("perf-analyzer", epilog=_examples("bench setup perf-analyzer"))
@click.option("--quiet", is_flag=True, help="Say nothing when it is there already.")
def setup_perf_analyzer(quiet: bool) -> None:
    """A perf_analyzer that runs on this machine's C library, in the user's cache."""
    sys.exit(verb("cli.verbs.report", "setup_perf_analyzer")(quiet=quiet))


def _command_line() -> tuple[str, ...]:
    return ("bench", *sys.argv[1:])


def main() -> None:
    """Entry point: one place where errors become a message on stderr and an exit code."""
    try:
        bench.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_WRONG_USE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # somebody closed our stdout, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except WrongUse as error:
        click.echo("\n".join(f"error: {mistake}" for mistake in error.mistakes), err=True)
        sys.exit(error.exit_code)
    except BenchError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # Python would end with 1, which says here that a gate was missed
        click.echo(_unforeseen(error), err=True)
        sys.exit(EXIT_FAILED)


def _unforeseen(error: Exception) -> str:
    """A file that cannot be read or written is the machine's; anything else is a mistake of ours."""
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _DISK):
        where = "" if error.filename is None else f"{error.filename}: "
        return f"error: {where}{error.strerror}. See to the path, its permissions and the free space."
    said = "".join(traceback.format_exception(error))
    return f"{said}error: this is a mistake in bench {__version__}; report it with the lines above."
