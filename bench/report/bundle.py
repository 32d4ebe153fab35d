"""Join the page's ES modules into the one script that the page carries, without Node.

Each module becomes a function that returns its exports, so that its other names stay its own. Only a small
part of the language's imports and exports is read: named imports of files in the same folder, and exports at
the declaration of a function, a constant or a class. The modules may not import each other in a circle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Formatted code has declarations of a module at the start of a line, and nothing else that looks like them.
_IMPORT = re.compile(r'^import \{([\w$,\s]+)\} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|const|class) ([\w$]+))", re.MULTILINE)
_LEFT_OVER = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)


class BundleError(ValueError):
    """A module says something that this step does not read; the text says what to write instead."""


def join(modules: Mapping[str, str], entry: str) -> str:
    """One script that runs `entry` after all that it imports. `modules`: source by name, without `.js`.

    The script leaves the exports of each module in the constant `modules`. Raises BundleError.
    """
    parts = [_wrapped(name, modules) for name in _in_order(modules, entry)]
    return "\n".join(["const modules = {};", *parts])


def _in_order(modules: Mapping[str, str], entry: str) -> list[str]:
    """Names of the modules that are needed, each after those that it imports."""
    done: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " imports ".join(f"{one}.js" for one in (*path[path.index(name) :], name))
            raise BundleError(f"{circle}: move what both need into a module of its own.")
        if name in done:
            return
        if name not in modules:
            raise BundleError(
                f"{path[-1] + '.js' if path else 'the page'} needs {name}.js, which is not there."
            )
        for match in _IMPORT.finditer(modules[name]):
            visit(match[2], (*path, name))
        done.append(name)

    visit(entry, ())
    return done


def _wrapped(name: str, modules: Mapping[str, str]) -> str:
    source = modules[name]
    exports = _EXPORT.findall(source)
    body = _EXPORT.sub("", _IMPORT.sub(lambda match: _unpacked(name, match, modules), source))
    left_over = _LEFT_OVER.search(body)
    if left_over:
        raise BundleError(
            f'{name}.js has the line "{left_over[0]}". Write import {{ a, b }} from "./module.js"; or put '
            "export before a function, const or class."
        )
    return f"modules.{name} = (() => {{\n{body}return {{ {', '.join(exports)} }};\n}})();"


def _unpacked(name: str, match: re.Match[str], modules: Mapping[str, str]) -> str:
    """The constants that stand for an import."""
    wanted = [one.strip() for one in match[1].split(",") if one.strip()]
    missing = sorted(set(wanted) - set(_EXPORT.findall(modules[match[2]])))
    if missing:
        raise BundleError(f"{name}.js imports {', '.join(missing)}, which {match[2]}.js does not export.")
    return f"const {{ {', '.join(wanted)} }} = modules.{match[2]};"
