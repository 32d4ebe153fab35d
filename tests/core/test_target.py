"""From one address to three; what is none is refused with what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.target import header, normalise_url, target_of


@pytest.mark.parametrize(
    ("url", "http", "grpc", "metrics"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000", "127.0.0.1:8001", "http://127.0.0.1:8002/metrics"),
        ("http://host:9000/", "http://host:9000", "host:9001", "http://host:9002/metrics"),
        ("[::1]:8000", "http://[::1]:8000", "[::1]:8001", "http://[::1]:8002/metrics"),
        # no port to count from: nothing is guessed
        ("https://host/vit", "https://host/vit", None, None),
    ],
)
def test_neighbouring_ports_are_tritons_own(
    url: str, http: str, grpc: str | None, metrics: str | None
) -> None:
    target = target_of(url, None, None)
    assert (target.http_url, target.grpc_address, target.metrics_url) == (http, grpc, metrics)


@pytest.mark.parametrize(
    ("grpc_url", "metrics_url", "grpc", "metrics"),
    [
        ("other:7", "other:8", "other:7", "http://other:8/metrics"),
        ("grpc://other:7", "http://other:8/m", "other:7", "http://other:8/m"),
        (None, "other:8/metrics/", "host:9001", "http://other:8/metrics"),
    ],
)
def test_what_is_given_is_taken(grpc_url: str | None, metrics_url: str, grpc: str, metrics: str) -> None:
    target = target_of("host:9000", grpc_url, metrics_url)
    assert (target.grpc_address, target.metrics_url) == (grpc, metrics)


@pytest.mark.parametrize(
    "text", ["", "ftp://host", "http://", "host:port", "host:99999", "a b:80", "http://[::1"]
)
def test_what_is_no_address_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="give host:port"):
        normalise_url(text)


@pytest.mark.parametrize("grpc_url", ["host", "host:x", "grpc://host"])
def test_a_grpc_address_needs_a_port(grpc_url: str) -> None:
    with pytest.raises(ValueError, match="give host:port"):
        target_of("host:8000", grpc_url, None)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        url = normalise_url(text)
    except ValueError:
        return
    assert normalise_url(url) == url


def test_a_header_is_a_name_and_a_value() -> None:
    assert header("Authorization: Bearer a:b") == ("Authorization", "Bearer a:b")


@pytest.mark.parametrize("text", ["secret", ":secret", "a: secret\r\nb: c", "a:\0secret"])
def test_a_wrong_header_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="NAME:VALUE") as caught:
        header(text)
    assert "secret" not in str(caught.value)


def test_headers_are_never_shown() -> None:
    target = target_of("host:1", None, None, [("Authorization", "secret")])
    assert "secret" not in repr(target)
