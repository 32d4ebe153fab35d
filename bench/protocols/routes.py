"""Which of a target's addresses a load's requests take: the server, a service's address, or its pods."""

from __future__ import annotations

from dataclasses import replace

from bench.core.cell import Load, Protocol, Via
from bench.core.errors import ToolError
from bench.core.target import Target
from bench.protocols.registry import DRIVERS


def service_for(target: Target, protocol: Protocol) -> Target:
    """The service that takes a protocol, with no pods but its own: a platform's port is HTTP or gRPC."""
    service = DRIVERS[protocol].service(target)
    return service if service.over_grpc is None else replace(service, over_grpc=None)


def routes(target: Target, load: Load) -> tuple[Target, ...]:
    """Where the users of a load send their requests: all to one address, or spread over the pods.

    Where a service's address does not take the protocol, requests go straight to its pods.
    """
    service = service_for(target, load.protocol)
    is_straight = load.via is Via.POD or not DRIVERS[load.protocol].address(service)
    return service.pods if is_straight and service.is_service else (service,)


def only_route(target: Target, load: Load) -> Target:
    """The route of a load generator that takes one address. Raises ToolError where there are several."""
    found = routes(target, load)
    if len(found) > 1:
        raise ToolError(
            f"This engine takes one address, and straight to the pods there are {len(found)}: "
            "use --engine locust, --replicas 1, or --via platform."
        )
    return found[0]


def route_record(target: Target, load: Load) -> dict[str, str]:
    """How a load's requests went, in words and as an address, to keep with its trial; {} off clusters."""
    first = routes(target, load)[0]
    return {"way": first.way, "address": DRIVERS[load.protocol].address(first)} if first.way else {}


def missing_route(target: Target, protocol: Protocol, vias: tuple[Via | None, ...]) -> str:
    """What to do where a protocol is asked for and there is no address for it; ""."""
    service = service_for(target, protocol)
    if DRIVERS[protocol].address(service) or (service.is_service and Via.PLATFORM not in vias):
        return ""
    if service.is_service:
        return (
            f"the service's address does not take {protocol}: name a service that does beside it "
            "(--mlservice A,B), leave out --via, or give --via pod"
        )
    return DRIVERS[protocol].address_hint
