"""A page without scripts, in the report's looks: comparisons, and the list of runs."""

from __future__ import annotations

from html import escape
from importlib.resources import files

_DARK = ':root[data-theme="dark"]'


def static_page(*, kind: str, heading: str, facts: str, body: str, style: str = "") -> str:
    """`body` and `style` as they are; the others are text. Light or dark, as the system is."""
    css = files("bench.report").joinpath("web", "page.css").read_text(encoding="utf-8")
    dark = css[css.index(_DARK) + len(_DARK) :]
    dark = dark[: dark.index("}") + 1]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(heading)}</title>
<style>{css}{style}
@media screen and (prefers-color-scheme: dark) {{ :root {dark} }}</style>
</head>
<body>
<header class="top"><div class="wrap"><p class="kind">{escape(kind)}</p>
<h1>{escape(heading)}</h1><p class="facts">{escape(facts)}</p></div></header>
<div class="wrap"><main>{body}</main></div>
</body>
</html>
"""
