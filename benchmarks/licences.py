"""`python -m benchmarks.licences`: each installed package, its version, and the licence that it states."""

from __future__ import annotations

from importlib.metadata import Distribution, distributions

_CLASSIFIER = "License :: "


def licence(package: Distribution) -> str:
    """Its SPDX expression, else its classifiers, else the first line of its text, else "unknown"."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or ()
        if line.startswith(_CLASSIFIER)
    ]
    lines = str(metadata.get("License") or "").strip().splitlines()
    return "; ".join(classifiers) or (lines[0] if lines else "unknown")


def main() -> None:
    rows = sorted({(one.metadata["Name"], one.version, licence(one)) for one in distributions()})
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, version, terms in rows:
        print(f"{name:{widths[0]}}  {version:{widths[1]}}  {terms}")


if __name__ == "__main__":
    main()
