"""Where the target is, from flags: started here, at an address, or a service on a cluster."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace

from bench.cli.values import Values
from bench.cluster.jobs.remote_sweep import DEFAULT_IMAGE, InCluster
from bench.cluster.platforms import PLATFORMS, base
from bench.cluster.platforms.base import DeploymentSpec
from bench.cluster.session import KubernetesProvider
from bench.core.cell import Engine, Protocol, SharedMemory, Via
from bench.core.spec import SweepSpec
from bench.core.target import Target, Tls, target_of
from bench.server.provider import AddressProvider, EmbeddedProvider, Provider
from bench.server.repository import SHIPPED, Repository


def provider_of(values: Values, spec: SweepSpec) -> Provider:
    """Of a verb that measures. Mistakes are noted in `values`."""
    return kubernetes_of(values, spec) or server_of(values)


def server_of(values: Values) -> Provider:
    """A server at an address, else one that is started here."""
    if values.has("url"):
        return AddressProvider(_target(values))
    is_served = "http_port" in values.options
    ports = (values["http_port"], values["grpc_port"], values["metrics_port"]) if is_served else (0, 0, 0)
    return EmbeddedProvider(repository_of(values), values["tritonserver"], ports)


def check_model(repository: Repository | None, values: Values) -> None:
    """Of a server started here, the repository on disk tells whether it has the model."""
    if repository is not None and values["model"] not in repository.models():
        known = ", ".join(repository.models())
        values.wrong("model", f"not in {repository.path}; it has {known}", values["model"])


def repository_of(values: Values) -> Repository:
    return Repository(values["repository"] or SHIPPED, values["vit"])


def kubernetes_of(values: Values, spec: SweepSpec) -> KubernetesProvider | None:
    """None without --mlservice and --deploy."""
    if not (values.has("mlservice") or values["deploy"]):
        return None
    if any(memory is not SharedMemory.NONE for memory in spec.shared_memory):
        values.wrong("shared_memory", "needs the server on this host")
    several = any((count or 1) > 1 for count in spec.replicas)
    if several and Via.POD in spec.vias and Engine.PERF_ANALYZER in spec.engines:
        values.wrong("via", "with several --replicas only --engine locust spreads over the pods", "pod")
    return KubernetesProvider(
        platform=PLATFORMS[values["platform"] or "mlservice"],
        names=values["mlservice"] or (),
        specs=_services(_deployment(values, spec), spec) if values["deploy"] else (),
        protocols=spec.protocols,
        most_replicas=max(count or 1 for count in spec.replicas),
        namespace=values["namespace"],
        context=values["context"],
        keep=values["keep"],
        timeout_s=600.0 if values["deploy_timeout"] is None else values["deploy_timeout"],
        vias=spec.vias,
        headers=values["header"],
        tls=tls_of(values),
    )


def in_cluster_of(values: Values, spec: SweepSpec, provider: Provider) -> InCluster | None:
    """Where the sweep's own Jobs run; None without --in-cluster."""
    if not values["in_cluster"]:
        return None
    return InCluster(
        workers=spec.workers,
        service=provider if isinstance(provider, KubernetesProvider) else None,
        namespace=values["namespace"],
        context=values["context"],
        image=values["load_image"] or DEFAULT_IMAGE,
        account=values["load_account"] or "",
    )


def check_workers(values: Values, spec: SweepSpec) -> None:
    """Workers elsewhere have no memory in common with the server."""
    if (values["in_cluster"] or values["locust_master"]) and SharedMemory.SYSTEM in spec.shared_memory:
        values.wrong("shared_memory", "needs workers on the server's host: use --processes", "system")


def _target(values: Values) -> Target:
    addresses = values["url"], values["grpc_url"], values["metrics_url"]
    if addresses[0] is None:  # a mistake that is noted already
        return Target("")
    if values["in_cluster"] and any("@" in (values[name] or "") for name in ("url", "proxy")):
        values.wrong("in_cluster", "goes without a password in --url or --proxy: it would lie in the clear")
    try:
        return target_of(*addresses, values["header"], tls_of(values), values["proxy"] or "")
    except ValueError as error:
        values.wrong("url", str(error))
        return Target("")


def tls_of(values: Values) -> Tls:
    """How TLS is done. Files that cannot be used are noted as mistakes."""
    paths = {name: values[name] for name in ("ca", "cert", "key")}
    ca, cert, key = (str(path.expanduser().absolute()) if path else "" for path in paths.values())
    if ca or cert:
        # ssl takes time to import, and most targets need none of it.
        from bench.protocols.tls_socket import mistake

        for name, tls in (("ca", Tls(ca)), ("cert", Tls(certificate=cert, key=key))):
            if paths[name] and (wrong := mistake(tls)):
                values.wrong(name, wrong)
    return Tls(ca, cert, key, bool(values["insecure"]))


def _services(wanted: DeploymentSpec, spec: SweepSpec) -> tuple[DeploymentSpec, ...]:
    """A second service for gRPC, where both protocols are to go through addresses of one port each."""
    if not wanted.platform.one_port or Protocol.GRPC not in spec.protocols:
        return (wanted,)
    if set(spec.vias) == {Via.POD}:
        return (wanted,)
    if Protocol.HTTP not in spec.protocols:
        return (replace(wanted, traffic=Protocol.GRPC),)
    return (wanted, base.beside(wanted))


def _deployment(values: Values, spec: SweepSpec) -> DeploymentSpec:
    if any(name == "model" for name, _ in values["set"]):
        values.wrong("set", "is what --model says", "model")
    stem = re.sub("[^a-z0-9]+", "-", spec.model.lower()).strip("-")[:18].rstrip("-")
    name = f"bench-{stem}-{secrets.token_hex(3)}"
    wanted = DeploymentSpec(
        platform=PLATFORMS[values["platform"] or "mlservice"],
        name=name,
        namespace=values["namespace"] or "default",
        image=values["triton_image"] or "",
        replicas=(spec.replicas[0] if spec.replicas else None) or 1,
        gpu=values["gpu"] or 0,
        queue=values["queue"] or "",
        run_label=name,
        sets=(("model", spec.model), *values["set"]),
    )
    # `bench deploy` calls it --image, which is the picture here.
    for mistake in base.mistakes(wanted):
        flag, _, rest = mistake.replace("--image", "--triton-image").partition(" ")
        text, _, allowed = rest.partition(": ")
        values.mistakes.wrong(flag, text, allowed)
    return wanted
