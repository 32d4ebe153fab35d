"""`bench serve`: a Triton kept in the foreground."""

from __future__ import annotations

import time

from bench.cli.progress import ConsoleProgress
from bench.cli.targets import check_model, server_of
from bench.cli.values import Values
from bench.core.cell import ServerConfiguration
from bench.core.errors import ServerStartFailed
from bench.core.scratch import claim
from bench.report.publish import TALK

# The log of a server that ended stays until `bench serve` is called again.
_LOG_PREFIX = "bench-serve-"


def run(values: Values) -> int:
    """Until Ctrl-C. Raises ServerStartFailed when the server ends by itself."""
    provider, model = server_of(values), values["model"]
    check_model(provider.repository, values)
    values.mistakes.check()
    log = values["log"] or claim(_LOG_PREFIX) / "tritonserver.log"
    with ConsoleProgress() as progress, provider.open(model, progress.say, log) as session:
        asked = ServerConfiguration(model=model, instances=values["instance_count"])
        progress.configuring(asked)
        session.serving.configure(asked)
        progress.__exit__()
        addresses = session.target
        print(f"HTTP     {addresses.http_url}\ngRPC     {addresses.grpc_address}")
        print(f"metrics  {addresses.metrics_url}")
        print(
            f"\nbench sweep --url {addresses.http_url} --grpc-url {addresses.grpc_address} "
            f"--metrics-url {addresses.metrics_url} --model {model} --batch 1,8,32",
            flush=True,
        )
        TALK.print(f"log: {log}; Ctrl-C ends it.", soft_wrap=True)
        while session.triton.live():
            time.sleep(1.0)  # nothing to do but notice its end
    raise ServerStartFailed(f"tritonserver ended by itself: read its log, {log}.")
