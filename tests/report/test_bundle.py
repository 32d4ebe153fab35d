"""Modules joined into one script: order, scopes, and a clear sentence for what is not read."""

from __future__ import annotations

import pytest

from bench.report.bundle import BundleError, join
from bench.report.templates import WEB, script

MODULES = {
    "main": 'import { double } from "./numbers.js";\nimport { one } from "./constants.js";\ndouble(one);\n',
    "numbers": (
        'import {\n  one,\n  two,\n} from "./constants.js";\n'
        "const hidden = two;\nexport function double(x) {\n  return x * hidden * one;\n}\n"
    ),
    "constants": "export const one = 1;\nexport const two = 2;\nconst hidden = 3;\n",
}


def test_each_module_comes_once_after_all_that_it_imports() -> None:
    script = join(MODULES, "main")
    places = [script.index(f"modules.{name} = (() =>") for name in ("constants", "numbers", "main")]
    assert places == sorted(places)
    assert script.count("modules.constants = ") == 1


def test_imports_and_exports_become_constants_of_each_modules_own_scope() -> None:
    script = join(MODULES, "main")
    assert "const { one, two } = modules.constants;" in script
    assert "return { one, two };\n})();" in script
    assert "return { double };" in script
    assert "\nimport" not in script
    assert "\nexport" not in script


def test_a_module_that_nobody_imports_is_left_out() -> None:
    assert "numbers" not in join(MODULES, "constants")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('import numbers from "./constants.js";', "Write import { a, b } from"),
        ('import * as all from "./constants.js";', "Write import { a, b } from"),
        ('import "./constants.js";', "Write import { a, b } from"),
        ('import { one } from "somewhere";', "Write import { a, b } from"),
        ("export default 3;", "put export before a function"),
        ("export { one };", "put export before a function"),
        ("export let one = 1;", "put export before a function"),
        (
            'import { one as first } from "./constants.js";',
            "one as first, which constants.js does not export",
        ),
        ('import { three } from "./constants.js";', "main.js imports three, which constants.js does not"),
        ('import { one } from "./absent.js";', "main.js needs absent.js, which is not there"),
    ],
)
def test_what_it_does_not_read_is_refused_with_what_to_write(source: str, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        join({**MODULES, "main": f"{source}\n"}, "main")


def test_modules_in_a_circle_are_refused_with_the_way_round() -> None:
    circle = {
        "main": 'import { a } from "./a.js";\n',
        "a": 'import { b } from "./b.js";\nexport const a = b;\n',
        "b": 'import { a } from "./a.js";\nexport const b = a;\n',
    }
    with pytest.raises(BundleError, match=r"^a\.js imports b\.js imports a\.js: move what both need"):
        join(circle, "main")


def test_every_module_of_the_page_is_in_its_script() -> None:
    names = {path.stem for path in (WEB / "js").glob("*.js")}
    assert names == {line.split(" = ")[0].removeprefix("modules.") for line in script().splitlines()
                     if line.startswith("modules.")}  # fmt: skip
