"""What goes with what: every need and every exclusion of the table is held, and told with the flag."""

from __future__ import annotations

import pytest

from bench.cli.commands import SWEEP, VERBS
from bench.core.options import OPTIONS, Option
from tests.support.command import values_of

# A value that each kind of an option that stands in a need or an exclusion takes.
GOOD = {
    "url": "http://h:8000", "mlservice": "vit", "against": "run", "variant": "a=", "workers": "2",
    "processes": "2", "locust_master": "h", "repeats": "3", "namespace": "demo", "context": "kind",
    "platform": "kserve", "triton_image": "i", "gpu": "1", "queue": "q", "set": "cpu=8", "replicas": "2",
    "deploy_timeout": "1m", "via": "pod", "fail_if": "p99>+5%", "grpc_url": "h:8001", "metrics_url": "h:8002",
    "header": "A:secret", "vit": "tiny", "repository": "r", "tritonserver": "t", "load_image": "i",
    "load_account": "a", "ca": "ca.pem", "cert": "c.pem", "key": "k.pem", "proxy": "http://p:1",
}  # fmt: skip
NEEDS = [(o, needed) for o in SWEEP.options for needed in o.needs]
EXCLUSIONS = [(o, other) for o in SWEEP.options for excluded in o.excludes for other in excluded.names]


def typed(name: str) -> list[str]:
    option = OPTIONS[name]
    return [option.long] if option.is_switch else [option.long, GOOD[name]]


def said_of(option: Option, *others: str) -> list[str]:
    words = [word for name in (option.name, *others) for word in typed(name)]
    mistakes = values_of("sweep", *words).mistakes.mistakes
    assert "secret" not in "".join(mistakes)
    return [mistake for mistake in mistakes if mistake.startswith((f"{option.long} ", f"{option.long}:"))]


@pytest.mark.parametrize(("option", "needed"), NEEDS, ids=lambda value: getattr(value, "name", None))
def test_an_option_alone_names_what_it_goes_with(option: Option, needed: tuple[str, ...]) -> None:
    alone = said_of(option)
    assert any("goes with" in said and all(OPTIONS[name].long in said for name in needed) for said in alone)
    for name in needed:
        fewer = said_of(option, name)
        assert not any(
            "goes with" in said and all(OPTIONS[one].long in said for one in needed) for said in fewer
        )


@pytest.mark.parametrize(("option", "other"), EXCLUSIONS, ids=lambda value: getattr(value, "name", value))
def test_an_option_beside_one_that_it_excludes_is_refused(option: Option, other: str) -> None:
    assert any("goes without" in said and OPTIONS[other].long in said for said in said_of(option, other))


def test_a_verb_names_nothing_that_it_does_not_have() -> None:
    """deploy has --namespace, but neither --mlservice nor --in-cluster to go with it."""
    for verb in VERBS:
        own = {option.name for option in verb.options}
        for option in verb.options:
            if option.needs and not any(set(needed) & own for needed in option.needs) and option.name in GOOD:
                mistakes = values_of(verb.name, *typed(option.name)).mistakes.mistakes
                assert not any("goes with" in said for said in mistakes), (verb.name, option.name)
