"""HTML from the templates in web/templates. Every value is escaped, but those marked as HTML already."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.report import bundle, content_policy

WEB = Path(__file__).with_name("web")
_DARK = ':root[data-theme="dark"]'


def render(name: str, **values: Any) -> Markup:
    """The template `name` with `values`; a value that the template needs and does not get is an error."""
    return Markup(_environment().get_template(name).render(values))


def asset(name: str) -> str:
    """A file of the web folder as it is."""
    return (WEB / name).read_text(encoding="utf-8")


def script() -> str:
    """What the page runs: its modules, joined."""
    modules = {path.stem: path.read_text(encoding="utf-8") for path in (WEB / "js").glob("*.js")}
    return f'(() => {{\n"use strict";\n{bundle.join(modules, "main")}\n}})();'


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(WEB / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = asset("page.css")
    environment.globals["css"] = Markup(css)
    environment.globals["static_policy"] = content_policy.static
    environment.globals["drawing_policy"] = content_policy.drawing
    environment.globals["dark_colours"] = Markup(_dark_colours(css))
    return environment


def _dark_colours(css: str) -> str:
    """The block of colours that a page without scripts takes where the system is dark."""
    block = css[css.index(_DARK) + len(_DARK) :].lstrip()
    return block[: block.index("}") + 1]
