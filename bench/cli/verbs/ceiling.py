"""`bench ceiling`: which variants and batches, and a table of the results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import cattrs
from rich.console import Console
from rich.table import Table

from bench.analysis import cell_table
from bench.analysis.ceiling import Bare, Ceiling, write_ceiling
from bench.analysis.cell_row import CellRow
from bench.analysis.results import RunResults
from bench.cli.values import Values
from bench.core import vit_variants
from bench.core.errors import EXIT_OK, RunFolderError
from bench.core.mistakes import Mistakes
from bench.core.run_folder import RunFolder
from bench.core.run_lock import locked
from bench.core.spec import SweepSpec
from bench.core.units import significant
from bench.experiments.ceiling import measure as ceiling
from bench.experiments.ceiling.measure import AXES
from bench.experiments.preconditions import Host, refuse_variants
from bench.sensors import nvml
from bench.server import model_config
from bench.server.repository import Repository
from bench.server.weights import resolve

TALK = Console(stderr=True, highlight=False)


def run(values: Values) -> int:
    """`bench ceiling`: raises WrongUse with all mistakes, ToolError where the network cannot run here."""
    folder = RunFolder.open(values["run"]) if values["run"] else None
    rows = RunResults.of(folder).rows if folder else []
    axes, batches = _axes(values, rows), _batches(values, rows)
    refuse_weights(values)
    _refuse(axes, values.mistakes)
    values.mistakes.check()
    with locked(folder.path) if folder else nullcontext():
        return _measured(values, folder, axes, batches)


def _measured(
    values: Values, folder: RunFolder | None, axes: Mapping[str, tuple[str, ...]], batches: tuple[int, ...]
) -> int:
    """Measure, show, and write into the run's folder, if there is one."""
    found = ceiling.measure(
        _weights(values, folder), axes, batches, seconds=values["seconds"], samples=values["samples"],
        threads=values["threads"], say=TALK.print,
    )  # fmt: skip
    if values["as_json"]:
        print(json.dumps(_as_json(found), indent=1))
    show(found, TALK if values["as_json"] else Console(highlight=False))
    if folder:
        path = write_ceiling(found, folder)
        cell_table.write_csv(RunResults.of(folder).rows, folder.path / "cells.csv")
        TALK.print(f"written: {path}; `bench report {folder.path}` shows efficiency.", soft_wrap=True)
    return EXIT_OK


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


def _axes(values: Values, rows: Sequence[CellRow]) -> dict[str, tuple[str, ...]]:
    """As asked, else as in the run, else as the shipped model is served."""
    axes = {}
    for name in AXES:
        served = tuple(sorted({value for row in rows if (value := getattr(row, name))}))
        asked = tuple(map(str, values[name] or ()))
        axes[name] = asked or served or (vit_variants.DEFAULTS[name],)
    return axes


def _batches(values: Values, rows: Sequence[CellRow]) -> tuple[int, ...]:
    return values["batch"] or tuple(sorted({row.batch for row in rows})) or (1, 8, 32)


def _refuse(axes: Mapping[str, tuple[str, ...]], mistakes: Mistakes) -> None:
    spec = SweepSpec(model="python_vit", batches=(1,), parameters=tuple(axes.items()), concurrencies=(1,))
    refuse_variants(spec, Repository().config("python_vit"), mistakes, Host.here())


def refuse_weights(values: Values) -> None:
    """Those of --run are what its ceiling is measured with."""
    if values["run"] and values["vit"] != "auto":
        values.wrong("vit", "goes without --run: the weights are the run's; leave it out")


def _weights(values: Values, folder: RunFolder | None) -> str:
    if folder is None:
        return resolve(values["vit"], has_gpu=nvml.count() > 0).parameter
    served = folder.record.served.values()
    found = {model_config.served(dict(config)).parameters.get("weights") for config in served} - {None}
    if len(found) != 1:
        raise RunFolderError(
            f"{folder.path} served {len(found)} kinds of weights: its cells have no one ceiling."
        )
    return str(found.pop())
