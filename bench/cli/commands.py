"""The verbs of `bench`: what it says of itself, which options it takes, and which function it calls.

A verb names its function as "module:function". It is imported when the verb is called, and the declarations
here import nothing heavy, so `--help` and completion stay fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from bench.core.cell import Protocol
from bench.core.options import MEASURING, OPTIONS, Option, Scope

# A verb with more options than this shows the common ones in `--help`, and all of them with `--help-all`.
MANY = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One command. `name` has a blank where it is a verb of a group: "setup perf-analyzer"."""

    name: str
    run: str
    help: str
    options: tuple[Option, ...]
    examples: tuple[str, ...]

    @property
    def is_long(self) -> bool:
        return len(self.options) > MANY


def but(name: str, **changes: Any) -> Option:
    """An option of the table that differs in this verb: its default, or what its help says."""
    return replace(OPTIONS[name], **changes)


def _options(*names: str | Option) -> tuple[Option, ...]:
    return tuple(OPTIONS[name] if isinstance(name, str) else name for name in names)


def _measuring(without: str, scopes: Iterable[Scope] = (), **changed: Option) -> tuple[Option, ...]:
    """All options that measure but for those named and of these scopes, some of them changed."""
    left_out, not_of = without.split(), tuple(scopes)
    kept = (o for o in MEASURING if o.name not in left_out and o.scope not in not_of)
    return tuple(changed.get(option.name, option) for option in kept)


_MUST_HOLD = {"required": True, "help": "What has to hold: p99=100ms,errors=0.1%."}
_ONE_IMAGE = but("batch", default="1")
_HTTP = but("protocol", default="http", without="")
# search and tune choose these themselves, so they do not take the options.
_ONE_AT_A_TIME = "arrival scenario engine repeats reload quick ceiling confirm perf_analyzer"
_RUNS_OWN = "the run's, or {}"

SWEEP = Verb(
    name="sweep", run="bench.cli.verbs.sweep:run",
    help="""Measure every combination of batch, instances, load and protocol, and write a report.

    A server is started on this machine unless --url, --mlservice or --deploy names another. Exit codes: 0 all
    cells VALID, 1 the SLO or a gate was missed, 3 some cell INVALID, undecided, or with too many errors.""",
    options=_measuring("longest_probe longest_trial budget"),
    examples=(
        "bench sweep --batch 1,8,32",
        "bench sweep --batch 1,8 --instances 1,2 --concurrency 1,4,16 --protocol http,grpc --repeats 5",
        "bench sweep --rate 5/s,10/s --slo p99=500ms --repeats 3",
        "bench sweep --precision fp32,bf16 --wire fp32,uint8 --output pooler_output --batch 1,8",
        "bench sweep --url 127.0.0.1:8000 --model my_model --batch 1,8 --dry-run",
        "bench sweep --workers 8 --in-cluster --url http://vit.demo --load-image registry/triton-bench",
        "bench sweep --mlservice vit --batch 1,8 --replicas 1,2 --via platform,pod",
        "bench sweep --deploy --triton-image registry/triton-vit:1 --gpu 1 --batch 1,8 --instances 1,2",
        "bench sweep --against reports/main --fail-if 'p99>+5%'",
        "bench sweep --batch 8 --variant old= --variant new=precision=bf16,instances=2 --repeats 5",
    ),
)  # fmt: skip
SEARCH = Verb(
    name="search", run="bench.cli.verbs.search:run",
    help="""Find the highest Poisson arrival rate that holds an SLO; every probe is in the report.

    The answer is a rate that is within the capacity with 99.5 % probability, by all probes. When that is more
    than 4.5 % below the likely capacity, or the server changed meanwhile, the search is not settled: it gives
    the interval and no answer. Exit codes: 0 settled, 1 no rate holds the SLO, 3 not settled or INVALID.""",
    options=_measuring(
        f"{_ONE_AT_A_TIME} deadline concurrency rate duration resume dry_run longest_trial budget",
        [Scope.JUDGING], batch=_ONE_IMAGE, protocol=_HTTP, slo=but("slo", **_MUST_HOLD),
    ),
    examples=(
        "bench search --slo p99=100ms",
        "bench search --slo p90=500ms,errors=0.1% --batch 1,8 --instances 1,2",
        "bench search --slo p99=100ms --mlservice vit --replicas 1,2 --workers 4",
    ),
)  # fmt: skip
TUNE = Verb(
    name="tune", run="bench.cli.verbs.tune:run",
    help="""Find the settings that serve most within an SLO, and print the config.pbtxt to deploy.

    It goes along one axis at a time instead of over the whole grid, and repeats the winner and the runner-up
    interleaved until they differ significantly. Exit codes: 0 proved, 3 likely, 1 nothing holds the SLO.""",
    options=_measuring(
        f"{_ONE_AT_A_TIME} deadline longest_probe", [Scope.JUDGING, Scope.WORKERS, Scope.IN_CLUSTER],
        batch=_ONE_IMAGE,
        protocol=but("protocol", default="http", without="", help=f"{' or '.join(Protocol)}."),
        slo=but("slo", **_MUST_HOLD),
        instances=but("instances", help="Instances to choose from.",
                      without="1,2,4,8 up to the cores; on a GPU 1,2,4"),
        max_batch=but("max_batch", help="max_batch_size to choose from.",
                      without="8, 32 and the model's own"),
        max_queue_delay=but("max_queue_delay", help="Queue delays to choose from.", without="off,0,1ms"),
        concurrency=but("concurrency", help="Users to choose from (closed loop).",
                        without="1,2,4,8,16,32,64"),
        rate=but("rate", help="Instead: arrivals per second to choose from (open loop): 50/s,100/s."),
        dry_run=but("dry_run", help="Print the axes, the grid and the most it would measure."),
    ),
    examples=(
        "bench tune --slo p99=50ms",
        "bench tune --slo p99=100ms --instances 1,2 --max-batch 8,32 --max-queue-delay off,1ms "
        "--precision fp32,bf16",
        "bench tune --slo p95=200ms --batch 1,8 --rate 5/s,10/s,20/s,40/s --budget 15m",
        "bench tune --slo p99=50ms --mlservice vit --namespace demo --max-batch 8,32",
        "bench tune --url 127.0.0.1:8000 --model my_model --slo p99=20ms --budget 60 --json",
    ),
)  # fmt: skip
CEILING = Verb(
    name="ceiling", run="bench.cli.verbs.ceiling:run",
    help="""Measure the served network without Triton: the most that this machine could do.

    Timed with CUDA events on a GPU and with the monotonic clock on a CPU, with the images on the device
    already. Run it with nothing else running.""",
    options=_options(
        "run", "vit", but("batch", default=None, without=_RUNS_OWN.format("1,8,32"), help="Images per pass."),
        but("precision", without=_RUNS_OWN.format("fp32")), but("compile", without=_RUNS_OWN.format("none")),
        but("output", without=_RUNS_OWN.format("last_hidden_state")),
        "threads", "seconds", "samples", "as_json",
    ),
    examples=(
        "bench ceiling --batch 1,8,32",
        "bench ceiling --vit base --precision fp32,bf16 --json",
        "bench ceiling --run reports/mine",
    ),
)  # fmt: skip
REPORT = Verb(
    name="report", run="bench.cli.verbs.report:report",
    help="""Rebuild a report from run folders alone.

    Several runs are drawn over each other, and the newest is judged; a folder of runs gets an index.html of
    them. Exit codes: 0, 1 where a run misses its SLO, 3 where a cell is INVALID, missing or undecided.""",
    options=_options(
        "runs", but("file", without="one run: its report.html; several: overlay.html; else stdout"),
        "report_format",
    ),
    examples=(
        "bench report reports/mine",
        "bench report reports/main reports/mine",
        "bench report reports",
        "bench report reports/mine --format md",
    ),
)  # fmt: skip
COMPARE = Verb(
    name="compare", run="bench.cli.verbs.report:compare",
    help="""Judge run folder NEW against BASE, cell by cell: regression, no change, or inconclusive.

    A gate is missed when the whole 95 % interval of new / base lies beyond it, and held when all of it lies
    on this side. Otherwise more repeats are needed, and the result says how many. Exit codes: 0 held, 1 a
    regression, 3 inconclusive.""",
    options=_options(
        "base", "new",
        but("fail_if", without="'throughput<-5%', 'p50>+5%' and 'errors>+1%'"), "anyway", "compare_format",
        but("file", without="stdout"),
    ),
    examples=(
        "bench compare reports/main reports/mine",
        "bench compare reports/main reports/mine --fail-if 'p99>+5%' --fail-if 'throughput<-3%'",
        "bench compare reports/main reports/mine --format html --out compare.html",
    ),
)  # fmt: skip
SERVE = Verb(
    name="serve", run="bench.cli.verbs.serve:run",
    help="Start a Triton on this machine, load the model, and keep it until Ctrl-C.",
    options=_options(
        "model", "vit", "tritonserver", "repository",
        "instance_count", "http_port", "grpc_port", "metrics_port", "log",
    ),
    examples=("bench serve", "bench serve --vit base --http-port 8000"),
)  # fmt: skip
INFER = Verb(
    name="infer", run="bench.cli.verbs.infer:run",
    help="Send one request and print the tensor that comes back, its shape, and the time.",
    options=_options(
        "url", "grpc_url", "metrics_url", "header", "ca", "cert", "key", "insecure", "proxy", "model", "vit",
        "tritonserver", "repository", "one_protocol", "timeout", "max_answer", "picture", "as_json",
    ),
    examples=(
        "bench infer --url 127.0.0.1:8000",
        "bench infer --url 127.0.0.1:8000 --protocol grpc --image cat.jpg",
    ),
)  # fmt: skip
DOCTOR = Verb(
    name="doctor",
    run="bench.cli.verbs.doctor:run",
    help="Check the setup of this machine, and say how to fix what is missing.",
    options=_options("tritonserver", "perf_analyzer", "as_json"),
    examples=("bench doctor", "bench doctor --json"),
)
WORKER = Verb(
    name="worker",
    run="bench.cli.verbs.worker:run",
    help="""Make load for a sweep on another machine: `bench sweep --workers N --locust-master HOST` there.

    One process uses one core: start as many as there are cores to give. It waits up to five minutes for the
    master, and ends when the sweep does (exit code 0) or cannot be heard for ten seconds (4).""",
    options=_options("master"),
    examples=("bench worker --master 10.0.0.5", "bench worker --master 10.0.0.5:6000"),
)
DEPLOY = Verb(
    name="deploy", run="bench.cli.verbs.deploy:run",
    help="Put the model on a cluster, and wait until the new revision is serving as asked.",
    options=_options(
        "platform", "service", "namespace", "context", "service_image", "pods", "gpu",
        but("one_protocol", help="What an MLService's one port takes; the others show both."),
        "queue", "set", "run_label", but("deploy_timeout", default="15m"), "keep_failed",
        but("dry_run", help="Print the manifests as YAML; ask and change nothing."),
        but("repository", help="Model repository that the volume was filled from, to compare with."),
    ),
    examples=(
        "bench deploy --image registry/triton-vit:1 --gpu 1",
        "bench deploy --platform kserve --image registry/vit:1 --replicas 2 --set cpu=8 --set pvc=models",
        "bench deploy --name vit-grpc --protocol grpc --image registry/triton-vit:1",
        "bench deploy --image registry/triton-vit:1 --dry-run | kubectl apply --dry-run=server -f -",
    ),
)  # fmt: skip
UNDEPLOY = Verb(
    name="undeploy", run="bench.cli.verbs.deploy:remove",
    help="Remove exactly what `bench deploy` made, by its labels.",
    options=_options(
        "deployment", but("run_label", without="", help="Remove everything with this label."),
        "namespace", "context", "undeploy_timeout",
    ),
    examples=("bench undeploy vit-base-patch16-224", "bench undeploy --run-label nightly"),
)  # fmt: skip
SETUP = Verb(
    name="setup perf-analyzer",
    run="bench.cli.verbs.setup:perf_analyzer",
    help="Install a perf_analyzer that runs on this machine's C library, in the user's cache.",
    options=_options("quiet"),
    examples=("bench setup perf-analyzer",),
)

VERBS = (
    SWEEP, SEARCH, TUNE, CEILING, REPORT, COMPARE, SERVE, INFER, DOCTOR, WORKER, DEPLOY, UNDEPLOY, SETUP,
)  # fmt: skip
GROUPS = {"setup": "Fetch tools that pip cannot install by itself."}
