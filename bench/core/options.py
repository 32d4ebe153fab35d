"""The one table of options: each flag's name, how its value is read and written, and what it belongs to.

All that knows flags derives from it: click's commands, `--help` and shell completion (`bench.cli`), the
command that repeats a cell and the arguments of a sweep inside a cluster (`bench.core.command_line`), what a
variant of an A/B measurement may set, which options go together, and the tables in docs/options.md.

A new option is one entry here, its name in the verbs that take it (`bench.cli.commands`), and the code that
uses its value.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from bench.core import kinds
from bench.core.cell import Arrival, Engine, Protocol, SharedMemory, Via
from bench.core.gates import parse_gate
from bench.core.kinds import Kind
from bench.core.spec import DEFAULT_REPEATS, Reload, Scenario
from bench.core.variant import Variant, parse_variant
from bench.core.vit_variants import Compile, Output, Precision, Wire

MAX_BATCH = 4096
MAX_USERS = 10_000
MAX_INSTANCES = 256
MAX_REPLICAS = 64
PLATFORMS = ("mlservice", "kserve", "deployment")
IMAGE_VARIABLE = "BENCH_TRITON_IMAGE"  # The image of a cluster seldom changes, and its name is long.


class Scope(Enum):
    """What an option belongs to. The value is its heading in `--help`; some scopes share one."""

    SERVER = "server", "Server configurations (each list is a further axis)"
    LEVEL = "level", "Load"  # how much of it: one given again replaces the others
    LOAD = "load", "Load"
    MEASURING = "measuring", "Measuring"
    SLO = "slo", "What has to hold, and against what"
    JUDGING = "judging", "What has to hold, and against what"
    ADDRESS = "address", "A server that runs already"
    EMBEDDED = "embedded", "A server started here"
    SERVICE = "service", "A service on a cluster"
    DEPLOY = "deploy", "A service on a cluster"
    READINESS = "readiness", "A service on a cluster"
    WORKERS = "workers", "Who makes the load"
    IN_CLUSTER = "in_cluster", "Who makes the load"
    GENERATOR = "generator", "Who makes the load"
    PROGRAM = "program", "Programs on this machine"
    OUTPUT = "output", "Run folder and output"

    @property
    def heading(self) -> str:
        return str(self.value[1])


@dataclass(frozen=True, slots=True)
class Excludes:
    """The option is refused beside any of `names`; `why` ends the sentence."""

    names: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option. Texts are what a person types; values are what `kind` reads them as."""

    name: str  # as Python names it
    kind: Kind[Any]
    scope: Scope
    help: str
    flag: str = ""  # "": --name
    aliases: tuple[str, ...] = ()
    off: str = ""  # the flag that says no, of a switch that is on by default
    default: str | None = None
    without: str = ""  # what happens without it, where that is no fixed value
    metavar: str = ""  # "": the kind's
    field: str = ""  # of SweepSpec, that holds its value
    multiple: bool = False
    is_argument: bool = False  # named by its place instead of a flag
    required: bool = False
    is_common: bool = False  # among those that `--help` shows first
    is_stated: bool = False  # in the command that repeats a cell, also where it is the default
    is_secret: bool = False  # its value is in no message and no record
    variable: str = ""  # the environment variable that stands for it
    needs: tuple[tuple[str, ...], ...] = ()  # one of each of these has to be given, too
    excludes: tuple[Excludes, ...] = ()

    @property
    def long(self) -> str:
        if self.is_argument:
            return self.name.upper()
        return self.flag or f"--{self.name.replace('_', '-')}"

    @property
    def flags(self) -> tuple[str, ...]:
        return (self.long, *self.aliases, *((self.off,) if self.off else ()))

    @property
    def is_switch(self) -> bool:
        return self.kind is kinds.SWITCH

    def parse(self, text: str) -> Any:
        """Raises ValueError saying what is allowed."""
        return self.kind.parse(text)

    def format(self, value: Any) -> str:
        """The text that `parse` reads as `value`."""
        return self.kind.format(value)


_COMPARED = Excludes(("against", "variant"))
_CLUSTER = (("mlservice", "deploy"),)
_DEPLOY = (("deploy",),)
_OWN = (
    Excludes(("url",), "that server has its own"),
    Excludes(("mlservice", "deploy"), "that server has its own"),
)
_ELSEWHERE = (("url", "mlservice", "deploy"),)
_NO_FILE_THERE = (Excludes(("in_cluster",), "the pods have no such file"),)
_SERVICE = (Excludes(("mlservice", "deploy")),)


def variant_settings() -> dict[str, Option]:
    """What a variant may set, without dashes: the server's flags, but for those of a service on a cluster."""
    options = [o for o in MEASURING if o.scope is Scope.SERVER and not o.needs and not o.multiple]
    return {option.long.removeprefix("--"): option for option in options}


def _variant(text: str) -> Variant:
    of_load = [o for o in MEASURING if o.scope in (Scope.LOAD, Scope.LEVEL) or o.name == "duration"]
    shared = [option.long.removeprefix("--") for option in of_load]
    return parse_variant(text, tuple(variant_settings()), shared)


# Options of the verbs that measure: sweep, search and tune. Their order is the order of mistakes and of help.
MEASURING: tuple[Option, ...] = (
    Option(name="model", kind=kinds.text("NAME", names="model"), scope=Scope.SERVER, default="python_vit",
           field="model", is_common=True, is_stated=True,
           help="Model to measure; calibration: null_vit, delay..."),
    Option(name="batch", kind=kinds.integers(1, MAX_BATCH), scope=Scope.LOAD, default="1,8,32",
           field="batches", is_common=True, is_stated=True, help="Images per request."),
    Option(name="replicas", kind=kinds.integers(1, MAX_REPLICAS), scope=Scope.SERVER, field="replicas",
           needs=_CLUSTER, excludes=(_COMPARED,), without="as found, or 1", help="Pods of the service."),
    Option(name="instances", kind=kinds.integers(1, MAX_INSTANCES), scope=Scope.SERVER, field="instances",
           is_common=True, without="as the model's file says", help="Model instances, changed live."),
    Option(name="max_batch", kind=kinds.integers(1, MAX_BATCH), scope=Scope.SERVER, field="max_batches",
           without="as the model's file says", help="Triton's max_batch_size, changed live."),
    Option(name="max_queue_delay", kind=kinds.DELAYS, scope=Scope.SERVER, field="queue_delays_us",
           without="as the model's file says", help="Dynamic batcher: off, 0, 500us, 1ms..."),
    Option(name="preferred_batch", kind=kinds.integers(1, MAX_BATCH), scope=Scope.SERVER,
           field="preferred_batches",
           help="preferred_batch_size of the dynamic batcher; the list is one setting."),
    Option(name="precision", kind=kinds.choices(Precision), scope=Scope.SERVER, without="as served",
           help="What the ViT computes in: fp32, tf32 (GPU), bf16, fp16."),
    Option(name="compile", kind=kinds.choices(Compile), scope=Scope.SERVER, without="as served",
           help="torch.compile: none, default, max-autotune (GPU)."),
    Option(name="wire", kind=kinds.choices(Wire), scope=Scope.SERVER, without="as served",
           help="How an image is sent to the ViT: fp32, uint8, jpeg."),
    Option(name="output", kind=kinds.choices(Output), scope=Scope.SERVER, without="as served",
           help="Output of the ViT: last_hidden_state, pooler_output, both."),
    Option(name="parameter", kind=kinds.AXIS, scope=Scope.SERVER, multiple=True,
           help="Model parameter as a further axis; may be repeated."),
    Option(name="concurrency", kind=kinds.integers(1, MAX_USERS), scope=Scope.LEVEL, field="concurrencies",
           is_common=True, without="4", help="Requests always in flight (closed loop)."),
    Option(name="rate", kind=kinds.RATES, scope=Scope.LEVEL, field="rates_per_s", is_common=True,
           help="Arrivals per second (open loop): 50/s,100/s."),
    Option(name="arrival", kind=kinds.choice(Arrival), scope=Scope.LOAD, default="poisson", field="arrival",
           help="Spacing of arrivals for --rate: poisson or constant."),
    Option(name="scenario", kind=kinds.choice(Scenario), scope=Scope.LEVEL, field="scenario",
            help="A load in the manner of MLPerf: single-stream, multi-stream, server, offline."),
    Option(name="protocol", kind=kinds.choices(Protocol, "both"), scope=Scope.LOAD, field="protocols",
           is_common=True, without="http; with --deploy both", help="http, grpc, or both."),
    Option(name="engine", kind=kinds.choices(Engine, "both"), scope=Scope.LOAD, default="locust",
           field="engines", help="Load generator: locust, perf_analyzer, or both."),
    Option(name="shared_memory", kind=kinds.choices(SharedMemory), scope=Scope.LOAD, default="none",
           field="shared_memory", help="How tensors reach the server: none, system, cuda."),
    Option(name="via", kind=kinds.choices(Via, "both"), scope=Scope.LOAD, field="vias", needs=_CLUSTER,
           excludes=(_COMPARED,), without="what answers",
           help="Way to a service: platform (its address), pod, or both."),
    Option(name="duration", kind=kinds.WINDOW, scope=Scope.MEASURING, default="5s", field="duration_s",
           is_common=True, help="Window of one trial; auto: until its interval is narrow."),
    Option(name="warmup", kind=kinds.TIME, scope=Scope.MEASURING, default="1s", field="warmup_s",
           help="Time at the trial's own load before the window opens."),
    Option(name="repeats", kind=kinds.integer(1, 1000), scope=Scope.MEASURING, field="repeats",
           is_common=True, default=str(DEFAULT_REPEATS), help="Trials of each cell; intervals need 3."),
    Option(name="reload", kind=kinds.choice(Reload), scope=Scope.MEASURING, field="reload",
           without="never; A/B: repeat",
           help="never, or repeat: load it for each repeat."),
    Option(name="quick", kind=kinds.SWITCH, scope=Scope.MEASURING,
           excludes=(Excludes(("repeats",), "it measures each cell once"),),
           help="Measure each cell once: no intervals, the figures are indicative."),
    Option(name="image", kind=kinds.IMAGE, scope=Scope.MEASURING, default="224x224",
           help="Size of the seeded images."),
    Option(name="seed", kind=kinds.integer(0, 2**31 - 1), scope=Scope.MEASURING, default="1", field="seed",
           is_stated=True,
           help="Seed of the arrivals and of the order of trials."),
    Option(name="check", kind=kinds.FRACTION, scope=Scope.MEASURING, default="1%", field="check_fraction",
           help="Share of answers whose values are compared with a reference."),
    Option(name="timeout", kind=kinds.LASTING, scope=Scope.MEASURING, default="60s", field="timeout_s",
           help="Request timeout."),
    Option(name="max_answer", kind=kinds.SIZE, scope=Scope.MEASURING, field="max_answer_bytes",
           without="what the outputs need, or 64MiB", help="Largest answer that is taken."),
    Option(name="trial_timeout", kind=kinds.LASTING, scope=Scope.MEASURING, field="trial_timeout_s",
           without="by its steps", help="Longest that one trial may take; then it is ended."),
    Option(name="deadline", kind=kinds.LASTING, scope=Scope.MEASURING, default="24h",
           help="Longest that the sweep may take; then it reports what it has."),
    Option(name="ceiling", kind=kinds.SWITCH, scope=Scope.MEASURING,
           excludes=(Excludes(("url", "mlservice", "deploy"), "it measures this machine"), _COMPARED),
           help="Measure the bare model first, for the column efficiency."),
    Option(name="confirm", off="--no-confirm", kind=kinds.SWITCH, scope=Scope.MEASURING,
           excludes=(Excludes(("quick",), "fresh trials need repeats"), _COMPARED),
           without="from about 10 cells on",
           help="Fresh trials of the best cell at the end."),
    Option(name="slo", kind=kinds.SLO, scope=Scope.SLO, is_common=True,
           help="Bounds for goodput and verdict: p99=100ms,errors=0.1%."),
    Option(name="against", kind=kinds.path("run"), scope=Scope.JUDGING,
           help="Measure that run's cells again, interleaved with its server, and judge."),
    Option(name="variant", kind=Kind("variant", "NAME=SETTING=VALUE,...", _variant),
           scope=Scope.JUDGING, multiple=True,
           help="A server of an A/B measurement; the first is the base. Give two or more."),
    Option(name="fail_if", kind=Kind("gate", "GATE", parse_gate), scope=Scope.JUDGING, multiple=True,
           needs=(("against", "variant"),),
           help="Gate: 'p99>+5%', 'throughput<-3%', 'errors>+1%'; may be repeated."),
    Option(name="max_errors", kind=kinds.FRACTION, scope=Scope.JUDGING, default="1%",
           field="max_error_fraction",
           help="With more failed requests no cell is recommended."),
    Option(name="assume_spread", kind=kinds.SHARE, scope=Scope.JUDGING,
           without="that of --against, or 2%",
           help="Spread of repeats, for the plan."),
    Option(name="detect", kind=kinds.SHARE, scope=Scope.JUDGING,
           help="A change: the plan says how many repeats it needs."),
    Option(name="anyway", kind=kinds.SWITCH, scope=Scope.JUDGING, needs=(("against", "variant"),),
           help="Judge although machines, models or weights differ."),
    Option(name="url", kind=kinds.URL, scope=Scope.ADDRESS, is_common=True, excludes=_SERVICE,
           without="a server is started here", help="HTTP address of a Triton that runs already."),
    Option(name="grpc_url", kind=kinds.HOST_PORT, scope=Scope.ADDRESS, needs=(("url",),), excludes=_SERVICE,
           without="the HTTP host, port + 1", help="Its gRPC address."),
    Option(name="metrics_url", kind=kinds.METRICS, scope=Scope.ADDRESS, needs=(("url",),),
           excludes=_SERVICE, without="the HTTP host, port + 2, /metrics", help="Its metrics address."),
    Option(name="header", kind=kinds.HEADER, scope=Scope.ADDRESS, multiple=True, is_secret=True,
           excludes=(Excludes(("in_cluster",), "it would lie in the cluster in the clear"),),
           help="Sent with each request, never stored; the value may be @env:NAME, @file:PATH."),
    Option(name="ca", kind=kinds.path(), scope=Scope.ADDRESS, needs=_ELSEWHERE, excludes=_NO_FILE_THERE,
           without="those of this machine", help="PEM file of authorities to trust, over https."),
    Option(name="cert", kind=kinds.path(), scope=Scope.ADDRESS, needs=_ELSEWHERE, excludes=_NO_FILE_THERE,
           help="PEM file of a client certificate to show."),
    Option(name="key", kind=kinds.path(), scope=Scope.ADDRESS, needs=(("cert",),), excludes=_NO_FILE_THERE,
           without="in the file of --cert", help="PEM file of its key, without a password."),
    Option(name="insecure", kind=kinds.SWITCH, scope=Scope.ADDRESS, needs=_ELSEWHERE,
           excludes=(Excludes(("ca",), "it takes any certificate"),),
           help="Take any certificate: whoever is between can read and change all."),
    Option(name="proxy", kind=kinds.PROXY, scope=Scope.ADDRESS, needs=(("url",),), excludes=_SERVICE,
           without="none", help="HTTP proxy to the server; env: as http_proxy and the like say."),
    Option(name="vit", kind=kinds.text("WEIGHTS", words=("auto", "base", "tiny"), names="folder"),
           scope=Scope.EMBEDDED, default="auto", excludes=_OWN,
           help="Weights of the ViT: auto, base, tiny, a folder, a Hugging Face name."),
    Option(name="repository", kind=kinds.path("folder"), scope=Scope.EMBEDDED, excludes=_OWN,
           without="the shipped one", help="Model repository."),
    Option(name="mlservice", kind=kinds.NAMES, scope=Scope.SERVICE, is_common=True, excludes=(_COMPARED,),
           help="Service on a cluster; a second name may be its gRPC release."),
    Option(name="deploy", kind=kinds.SWITCH, scope=Scope.DEPLOY,
           excludes=(Excludes(("mlservice",), "it makes a service, --mlservice names one that is there"),
                     _COMPARED),
           help="Make a service for the run, and remove it afterwards."),
    Option(name="namespace", kind=kinds.text("NAME"), scope=Scope.SERVICE, aliases=("-n",),
           needs=(("mlservice", "deploy", "in_cluster"),), excludes=(_COMPARED,),
           without="the kubeconfig's", help="Kubernetes namespace."),
    Option(name="context", kind=kinds.text("NAME"), scope=Scope.SERVICE,
           needs=(("mlservice", "deploy", "in_cluster"),), excludes=(_COMPARED,),
           without="the current one", help="kubeconfig context."),
    Option(name="platform", kind=kinds.one_of(*PLATFORMS), scope=Scope.SERVICE, needs=_CLUSTER,
           excludes=(_COMPARED,), default="mlservice",
           help="What runs the service: mlservice, kserve, deployment."),
    Option(name="triton_image", kind=kinds.text("IMAGE"), scope=Scope.DEPLOY, needs=_DEPLOY,
           excludes=(_COMPARED,), variable=IMAGE_VARIABLE, help="Image with a tritonserver."),
    Option(name="gpu", kind=kinds.integer(0, 999), scope=Scope.DEPLOY, needs=_DEPLOY, excludes=(_COMPARED,),
           default="0", help="GPUs of each pod; 0: CPU only."),
    Option(name="queue", kind=kinds.text("NAME"), scope=Scope.DEPLOY, needs=_DEPLOY, excludes=(_COMPARED,),
           help="T9k's scheduler queue."),
    Option(name="set", kind=kinds.SETTING, scope=Scope.DEPLOY, needs=_DEPLOY, excludes=(_COMPARED,),
           multiple=True, help="cpu, memory, shm, pvc...: docs/cluster.md has them all."),
    Option(name="deploy_timeout", kind=kinds.TIME, scope=Scope.READINESS, needs=_CLUSTER,
           excludes=(_COMPARED,), default="10m", help="Longest wait for a service to be ready or scaled."),
    Option(name="processes", kind=kinds.PROCESSES, scope=Scope.GENERATOR, default="auto", field="processes",
           help="Processes that make the load."),
    Option(name="workers", kind=kinds.integer(1, 1000), scope=Scope.WORKERS,
           excludes=(Excludes(("processes",), "a worker is a process"), _COMPARED),
           help="Locust workers that make the load."),
    Option(name="locust_master", kind=kinds.MASTER, scope=Scope.WORKERS, needs=(("workers",),),
           excludes=(_COMPARED,),
           help="Listen here as Locust's master for workers on other machines."),
    Option(name="in_cluster", kind=kinds.SWITCH, scope=Scope.IN_CLUSTER,
           needs=(("mlservice", "deploy", "url"), ("workers",)),
           excludes=(Excludes(("locust_master",), "the master runs in the cluster too"), _COMPARED),
           help="Run the sweep and its workers as Jobs in the cluster."),
    Option(name="load_image", kind=kinds.text("IMAGE"), scope=Scope.IN_CLUSTER, needs=(("in_cluster",),),
           excludes=(_COMPARED,), help="Image with bench installed, for --in-cluster."),
    Option(name="load_account", kind=kinds.text("NAME"), scope=Scope.IN_CLUSTER,
           needs=(("in_cluster",), ("mlservice", "deploy")), excludes=(_COMPARED,),
           without="default", help="Service account of the sweep's pod, see docs/cluster.md."),
    Option(name="tritonserver", kind=kinds.path(), scope=Scope.PROGRAM, excludes=_OWN,
           without="found here", help="The tritonserver to start."),
    Option(name="perf_analyzer", kind=kinds.path(), scope=Scope.PROGRAM, without="found here",
           help="The perf_analyzer to run."),
    Option(name="name", kind=kinds.text("NAME"), scope=Scope.OUTPUT, without="model and time",
           help="Name of the run."),
    Option(name="out", kind=kinds.path("folder"), scope=Scope.OUTPUT, is_common=True,
           without="reports/NAME", help="Folder of the run."),
    Option(name="force", kind=kinds.SWITCH, scope=Scope.OUTPUT, help="Replace the run in the folder."),
    Option(name="resume", kind=kinds.SWITCH, scope=Scope.OUTPUT,
           excludes=(Excludes(("in_cluster",), "the pod has no folder to go on with"),),
           help="Go on with the run in the folder."),
    Option(name="keep", kind=kinds.SWITCH, scope=Scope.OUTPUT, needs=_DEPLOY, excludes=(_COMPARED,),
           help="Leave the service of --deploy there afterwards."),
    Option(name="dry_run", kind=kinds.SWITCH, scope=Scope.OUTPUT, is_common=True,
           help="Print what would be measured and how long it takes; start nothing."),
    Option(name="as_json", kind=kinds.SWITCH, scope=Scope.OUTPUT, flag="--json",
           help="Print the result as JSON on stdout."),
    Option(name="longest_probe", kind=kinds.LASTING, scope=Scope.MEASURING, default="60s",
           help="A probe is as long as is needed, up to this (2s or more)."),
    Option(name="longest_trial", kind=kinds.LASTING, scope=Scope.MEASURING, default="20s",
           help="A trial is as long as the percentile needs, up to this."),
    Option(name="budget", kind=kinds.text("N|TIME"), scope=Scope.MEASURING, is_common=True,
           without="a quarter of the grid's cells", help="Measurements, or a time such as 10m."),
)  # fmt: skip

_PORT = kinds.integer(0, 65535)
# Options of the other verbs. Some flags stand for something else there, so they are entries of their own.
OTHERS: tuple[Option, ...] = (
    Option(name="one_protocol", flag="--protocol", kind=kinds.choice(Protocol), scope=Scope.LOAD,
           default="http", help=f"{' or '.join(Protocol)}."),
    Option(name="picture", flag="--image", kind=kinds.text("FILE|HxW", names="file"), scope=Scope.LOAD,
           default="224x224", help="A picture, or the size of a seeded one."),
    Option(name="instance_count", flag="--instances", kind=kinds.integer(1, MAX_INSTANCES),
           scope=Scope.SERVER, default="1", help="Instances of the model."),
    Option(name="http_port", kind=_PORT, scope=Scope.EMBEDDED, default="8000", help="0: any free one."),
    Option(name="grpc_port", kind=_PORT, scope=Scope.EMBEDDED, default="8001", help="0: any free one."),
    Option(name="metrics_port", kind=_PORT, scope=Scope.EMBEDDED, default="8002", help="0: any free one."),
    Option(name="log", kind=kinds.path(), scope=Scope.OUTPUT, without="a scratch file",
           help="The server's log."),
    Option(name="report_format", flag="--format", kind=kinds.one_of("html", "md", "table", "json"),
           scope=Scope.OUTPUT, default="html",
           help="html: the page; md: for a pull request; table: as after a sweep; json: cells."),
    Option(name="compare_format", flag="--format", kind=kinds.one_of("table", "md", "html", "json"),
           scope=Scope.OUTPUT, default="table",
           help="md: for a pull request; html: a page with the intervals drawn."),
    Option(name="file", flag="--out", kind=kinds.path(), scope=Scope.OUTPUT, help="Where to write."),
    Option(name="master", kind=kinds.MASTER, scope=Scope.WORKERS, required=True,
           help="Where the sweep listens."),
    Option(name="service", flag="--name", kind=kinds.text("NAME"), scope=Scope.SERVICE,
           default="vit-base-patch16-224", help="Name of the service."),
    Option(name="service_image", flag="--image", kind=kinds.text("IMAGE"), scope=Scope.DEPLOY, required=True,
           variable=IMAGE_VARIABLE, help="Image with a tritonserver and the model's libraries."),
    Option(name="pods", flag="--replicas", kind=kinds.integer(1, 999), scope=Scope.DEPLOY, default="1",
           help="Pods; their number is fixed, without autoscaling."),
    Option(name="run_label", kind=kinds.text("NAME"), scope=Scope.DEPLOY, without="the service's name",
           help="Label of everything that is made."),
    Option(name="keep_failed", flag="--keep", off="--no-keep", kind=kinds.SWITCH, scope=Scope.OUTPUT,
           default="true", help="--no-keep: remove it again when it fails."),
    Option(name="undeploy_timeout", kind=kinds.TIME, scope=Scope.READINESS, default="2m",
           help="Longest wait for pods to end."),
    Option(name="run", kind=kinds.path("run"), scope=Scope.OUTPUT,
           help="Keep the result with this run, for its own variants."),
    Option(name="threads", kind=kinds.integer(0, 4096), scope=Scope.MEASURING, default="0",
           help="torch's threads on a CPU; 0: every core."),
    Option(name="seconds", kind=kinds.LASTING, scope=Scope.MEASURING, default="1s",
           help="Length of one sample."),
    Option(name="samples", kind=kinds.integer(1, 10_000), scope=Scope.MEASURING, default="5",
           help="Samples of each batch; an interval needs 3."),
    Option(name="runs", kind=kinds.path("run"), scope=Scope.OUTPUT, is_argument=True, multiple=True,
           required=True, help="Run folders, or one folder that holds runs."),
    Option(name="base", kind=kinds.path("run"), scope=Scope.JUDGING, is_argument=True, required=True,
           help="The run to compare with."),
    Option(name="new", kind=kinds.path("run"), scope=Scope.JUDGING, is_argument=True, required=True,
           help="The run that is judged."),
    Option(name="deployment", kind=kinds.text("NAME"), scope=Scope.SERVICE, is_argument=True,
           help="Name of the service to remove."),
    Option(name="quiet", kind=kinds.SWITCH, scope=Scope.OUTPUT, help="Say nothing when it is there already."),
)  # fmt: skip

OPTIONS = {option.name: option for option in (*MEASURING, *OTHERS)}
# Flags of the verbs that measure, with every alias.
BY_FLAG = {flag: option for option in MEASURING for flag in option.flags}
