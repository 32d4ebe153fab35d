"""Passwords, tokens and keys go to the server and into no message, record or repeated command."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.command_line import repeated_words, target_flags, without_secrets
from bench.core.target import given_url, header, masked_url, proxy_address, target_of
from tests.support import synthetic
from tests.support.command import values_of
from tests.support.synthetic import Study, cell

SECRETS = ("s3cret", "t0ken")


def recorded(*words: str) -> list[str]:
    return without_secrets(["bench", "sweep", *words])


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("--url", "http://me:s3cret@h:8000"), ["--url", "http://***@h:8000"]),
        (("--url=me:s3cret@h:8000",), ["--url=***@h:8000"]),
        (("--url", "https://me:s3/cr@et:s3cret@h"), ["--url", "https://***@h"]),
        (("--proxy", "http://me:s3cret@p:3128"), ["--proxy", "http://***@p:3128"]),
        (("--header", "Authorization: Bearer t0ken"), ["--header", "***"]),
        (("--header=X-Key:t0ken",), ["--header=***"]),
        (("--header", "X-Key: @env:KEY"), ["--header", "X-Key: @env:KEY"]),
        (("--header", "X-Key:@file:/run/key"), ["--header", "X-Key:@file:/run/key"]),
        (("--unheard-of", "http://me:s3cret@h/x"), ["--unheard-of", "http://***@h/x"]),
        (("--ca", "ca.pem", "--insecure", "--batch", "8"), ["--ca", "ca.pem", "--insecure", "--batch", "8"]),
    ],
)
def test_a_command_is_stored_without_secrets(words: tuple[str, ...], kept: list[str]) -> None:
    assert recorded(*words)[2:] == kept
    assert recorded(*recorded(*words)[2:])[2:] == kept, "once masked, it stays so"


def test_what_repeats_a_cell_has_what_is_no_secret() -> None:
    words = ("--url", "http://h:8000", "--header", "A: t0ken", "--header", "B: @env:KEY", "--ca", "ca.pem")
    ran = synthetic.record(Study(cells=(cell(),)))
    object.__setattr__(ran, "command", tuple(recorded(*words)))
    scopes = {values_of("sweep").options[name].scope for name in ("url",)}
    assert repeated_words(ran, scopes) == [
        *("--url", "http://h:8000", "--header", "B: @env:KEY", "--ca", "ca.pem")
    ]
    assert target_flags(ran) == {"url": "http://h:8000", "header": ("B: @env:KEY",), "ca": "ca.pem"}


@pytest.mark.parametrize(
    "words",
    [
        ("--url", "http://me:s3cret@h:x"),
        ("--url", "ftp://me:s3cret@h"),
        ("--url", "http://me:s3/cret@h"),
        ("--url", "http://h:1", "--grpc-url", "me:s3cret@h:1"),
        ("--url", "http://h:1", "--metrics-url", "http://me:s3cret@h"),
        ("--url", "http://h:1", "--proxy", "https://me:s3cret@p:1"),
        ("--url", "http://me:s3cret@h:1", "--mlservice", "vit"),
        ("--url", "http://h:1", "--header", "s3cret"),
        ("--url", "http://h:1", "--header", "A: @env:NO_SUCH_VARIABLE"),
        ("--url", "http://h:1", "--header", "A: @file:/no/such/file"),
        ("--url", "http://***@h:1"),
    ],
)
def test_a_mistake_is_told_without_the_secret(words: tuple[str, ...]) -> None:
    mistakes = values_of("sweep", *words).mistakes.mistakes
    assert mistakes
    assert not any(secret in said for said in mistakes for secret in ("s3cret", "cret@"))


def test_a_password_in_the_address_becomes_a_header_of_every_request() -> None:
    target = target_of("http://me:pa%20ss%40@h:8000", None, None, (("X-Key", "k"),))
    assert target.headers == (("Authorization", "Basic bWU6cGEgc3NA"), ("X-Key", "k"))
    assert (target.http_url, target.grpc_address) == ("http://h:8000", "h:8001")
    assert "pa" not in repr(target)
    with pytest.raises(ValueError, match="not both"):
        target_of("http://me:pw@h", None, None, (("authorization", "Bearer x"),))


def test_a_header_is_taken_from_a_variable_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKEN", "Bearer t0ken\n")
    file = tmp_path / "key"
    file.write_text("k3y\n")
    assert header("Authorization: @env:TOKEN") == ("Authorization", "Bearer t0ken")
    assert header(f"X-Key:@file:{file}") == ("X-Key", "k3y")
    file.write_text("two\nlines")
    with pytest.raises(ValueError, match="one line"):
        header(f"X-Key:@file:{file}")
    with pytest.raises(ValueError, match="cannot be read"):
        header(f"X-Key:@file:{tmp_path}")


@given(st.text(max_size=40))
def test_any_address_is_masked(text: str) -> None:
    assert masked_url(f"http://user:{text}@h:1") == "http://***@h:1"


def test_the_environment_names_a_proxy_only_where_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://p:3128")
    monkeypatch.setenv("no_proxy", "near")
    assert target_of("http://far:1", None, None).proxy == ""
    assert target_of("http://far:1", None, None, proxy="env").proxy == "http://p:3128"
    assert target_of("http://near:1", None, None, proxy="env").proxy == ""
    assert proxy_address("p:3128") == given_url("http://p:3128")
