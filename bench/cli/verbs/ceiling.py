"""`bench ceiling`, and `--ceiling` of a sweep: which variants and batches, and a table of the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cattrs
from rich.console import Console
from rich.table import Table

from bench.analysis import cell_table as cells_table
from bench.analysis.ceiling import Bare, Ceiling, write_ceiling
from bench.analysis.cell_row import CellRow
from bench.analysis.results import RunResults
from bench.core import vit_variants
from bench.core.errors import EXIT_OK, RunFolderError
from bench.core.mistakes import Mistakes
from bench.core.parsing import positive_duration
from bench.core.paths import shipped
from bench.core.run_folder import RunFolder
from bench.core.spec import SweepSpec
from bench.core.units import parse_integers, significant
from bench.experiments.ceiling import measure as ceiling
from bench.experiments.preconditions import Host, refuse_variants
from bench.sensors import nvml
from bench.server import model_config
from bench.server.session import SHIPPED, repository_of, weights_of
from bench.server.weights import resolve

TALK = Console(stderr=True, highlight=False)
AXES = ("precision", "compile", "output")
Say = Callable[[str], None]


def run(given: Mapping[str, Any]) -> int:
    """`bench ceiling`: raises WrongUse with all mistakes, ToolError where the network cannot run here."""
    folder = RunFolder.open(given["run"]) if given.get("run") else None
    rows = RunResults.of(folder).rows if folder else []
    flags = Mistakes()
    axes, batches = _axes(given, rows), _batches(given, rows, flags)
    seconds = flags.read("--seconds", given["seconds"], positive_duration, 1.0)
    refuse_weights(given, flags)
    _refuse(axes, flags)
    flags.check()
    weights = _weights(given, folder)
    found = ceiling.measure(
        weights, axes, batches, seconds=seconds, samples=given["samples"],
        threads=given["threads"], say=TALK.print,
    )  # fmt: skip
    if given["as_json"]:
        print(json.dumps(_as_json(found), indent=1))
    show(found, TALK if given["as_json"] else Console(highlight=False))
    if folder:
        path = write_ceiling(found, folder)
        cells_table.write_csv(RunResults.of(folder).rows, folder.path / "cells.csv")
        TALK.print(f"written: {path}; `bench report {folder.path}` shows efficiency.", soft_wrap=True)
    return EXIT_OK


def check(given: Mapping[str, Any], remote: object, flags: Mistakes) -> None:
    """Of a sweep's --ceiling, before anything starts."""
    if given.get("ceiling") and remote is not None:
        flags.wrong("--ceiling", "with --url", "runs the model on this machine; a remote one has another")
    elif given.get("ceiling") and not vit_variants.has_variants(_config(given)):
        flags.wrong("--ceiling", given["model"], "only the shipped ViT has a bare model to compare with")


def before_sweep(given: Mapping[str, Any], spec: SweepSpec, say: Say) -> Ceiling | None:
    """Measured while no server runs. None without --ceiling."""
    if not given.get("ceiling"):
        return None
    config = _config(given)
    asked, served = dict(spec.parameters), vit_variants.chosen(config)
    weights = weights_of(config, given["vit"])
    assert weights is not None  # `check` has seen that it has variants, and so weights
    return ceiling.measure(
        weights.parameter, {name: asked.get(name, (served[name],)) for name in AXES}, spec.batches, say=say
    )


def keep(found: Ceiling | None, folder: RunFolder) -> None:
    if found is not None:
        write_ceiling(found, folder)


def show(found: Ceiling, console: Console) -> None:
    table = Table(box=None, header_style="bold")
    for name in (*AXES, "batch", "img/s", "95 %", "ms a batch", "TFLOP/s", "roofline", "reached"):
        table.add_column(name, justify="right" if name not in AXES else "left")
    for bare in found.bare:
        table.add_row(*_cells(found, bare))
    console.print(table)
    flop = found.shape.flop_per_image
    console.print(
        f"{found.device}, {found.threads} threads, torch {found.torch}; {flop / 1e9:.3g} GFLOP an image; "
        + "; ".join(
            f"a large {precision} product reached {significant(rate.flop_per_s / 1e12)} TFLOP/s, "
            f"a copy {significant(rate.bytes_per_s / 1e9)} GB/s"
            for precision, rate in found.rates.items()
        )
    )
    sources = {limit[1] for bare in found.bare if (limit := found.roofline_per_s(bare))}
    console.print(f"Roofline from rates: {', '.join(sorted(sources)) or 'none known'}.")


def _cells(found: Ceiling, bare: Bare) -> list[str]:
    interval, limit = bare.interval, found.roofline_per_s(bare)
    bounds = ""
    if interval.low is not None and interval.high is not None:
        bounds = f"{significant(interval.low)}-{significant(interval.high)}"
    return [
        bare.precision,
        bare.compile,
        bare.output,
        str(bare.batch),
        significant(interval.value),
        bounds,
        significant(1e3 * bare.batch / interval.value),
        significant(interval.value * found.shape.flop_per_image / 1e12),
        significant(limit[0]) if limit else "",
        f"{interval.value / limit[0]:.0%}" if limit else "",
    ]


def _as_json(found: Ceiling) -> dict[str, Any]:
    data: dict[str, Any] = cattrs.unstructure(found)
    data["shape"]["flop_per_image"] = found.shape.flop_per_image
    for entry, bare in zip(data["bare"], found.bare, strict=True):
        interval, limit = bare.interval, found.roofline_per_s(bare)
        entry |= {"img_per_s": interval.value, "img_per_s_low": interval.low, "img_per_s_high": interval.high}
        entry |= {"roofline_img_per_s": limit[0], "roofline_source": limit[1]} if limit else {}
    return data


def _config(given: Mapping[str, Any]) -> dict[str, Any]:
    path = repository_of(given) / given["model"] / "config.pbtxt"
    return dict(model_config.read(path)) if path.exists() else {}


def _axes(given: Mapping[str, Any], rows: Sequence[CellRow]) -> dict[str, tuple[str, ...]]:
    """As asked, else as in the run, else as the shipped model is served."""
    found = {}
    for name in AXES:
        served = tuple(sorted({value for row in rows if (value := getattr(row, name))}))
        words = tuple(word.strip() for word in (given.get(name) or "").split(",") if word.strip())
        found[name] = words or served or (vit_variants.DEFAULTS[name],)
    return found


def _batches(given: Mapping[str, Any], rows: Sequence[CellRow], flags: Mistakes) -> tuple[int, ...]:
    if given.get("batch"):
        return flags.read(
            "--batch", given["batch"], lambda text: parse_integers(text, low=1, high=65536), (1,)
        )
    return tuple(sorted({row.batch for row in rows})) or (1, 8, 32)


def _refuse(axes: Mapping[str, tuple[str, ...]], flags: Mistakes) -> None:
    spec = SweepSpec(model="python_vit", batches=(1,), parameters=tuple(axes.items()), concurrencies=(1,))
    config = model_config.read(shipped(SHIPPED) / "python_vit" / "config.pbtxt")
    refuse_variants(spec, config, flags, Host.here())


def refuse_weights(given: Mapping[str, Any], flags: Mistakes) -> None:
    if given.get("run") and given["vit"] != "auto":
        flags.wrong("--vit", given["vit"], "goes without --run: the weights are the run's; leave it out")


def _weights(given: Mapping[str, Any], folder: RunFolder | None) -> str:
    if folder is None:
        return resolve(given["vit"], has_gpu=nvml.count() > 0).parameter
    served = folder.record.served.values()
    found = {model_config.served(dict(config)).parameters.get("weights") for config in served} - {None}
    if len(found) != 1:
        raise RunFolderError(
            f"{folder.path} served {len(found)} kinds of weights: its cells have no one ceiling."
        )
    return str(found.pop())
