"""What `bench sweep --against` and `--variant` ask of each server: the flags, some of them changed."""

from __future__ import annotations

from bench.cli.values import Values
from bench.core.command_line import flags_of, levels, spec_of, target_flags
from bench.core.options import variant_settings
from bench.core.run_folder import RunRecord
from bench.core.variant import Variant
from bench.experiments.ab_test.variants import BASE, NEW


def variants_of(values: Values) -> tuple[Variant, ...]:
    """From --variant and --against; mistakes are noted in `values`."""
    variants: tuple[Variant, ...] = values["variant"]
    names = [variant.name for variant in variants]
    for name in sorted({name for name in names if names.count(name) > 1}):
        values.wrong("variant", "names two variants; give each a name of its own", name)
    if values.has("against"):
        if BASE in names:
            values.wrong("variant", "is what the run of --against is called; choose another name", BASE)
        return variants or (Variant(NEW),)
    if len(values.texts.get("variant", ())) == 1:
        values.wrong("variant", "needs a second one to be compared with, or --against RUN")
    return variants


def inherited(values: Values, base: RunRecord) -> Values:
    """The flags as typed, and where they say nothing, those the base was measured with."""
    before = {**flags_of(spec_of(base)), **target_flags(base)}
    before.pop("reload", None)  # it belongs to the way of comparing
    own = {name for name in values.texts if values.has(name)} | (
        {"repeats"} if values.has("quick") else set()
    )
    own |= levels() if own & levels() else set()
    typed = values.texts.get("parameter", ())
    renewed = {axis.partition("=")[0] for axis in typed}
    kept = [axis for axis in before["parameter"] if axis.partition("=")[0] not in renewed]
    texts = {**values.texts, **{name: text for name, text in before.items() if name not in own}}
    texts["parameter"] = (*kept, *typed)
    return Values.of(tuple(values.options.values()), texts, values.command)


def applied(values: Values, variant: Variant) -> Values:
    """The flags that ask for one variant."""
    of_server = variant_settings()
    flags = {of_server[name].name: value for name, value in variant.settings if name in of_server}
    others = {n: value for n, value in variant.settings if n not in of_server and n != "version"}
    kept = [axis for axis in values.texts.get("parameter", ()) if axis.partition("=")[0] not in others]
    parameter = (*kept, *(f"{name}={value}" for name, value in others.items()))
    return values.but(**flags, parameter=parameter)
