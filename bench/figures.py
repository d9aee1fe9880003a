"""The result of a benchmark: series of values, and kept or broken promises. Printed as text, stored as JSON."""

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.quiet import quiet

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Series:
    """Values of the same kind, one for each run."""

    name: str
    values: tuple[float, ...]
    unit: str = "s"

    @property
    def median(self) -> float:
        """The median, which one disturbed run does not change."""
        return statistics.median(self.values)

    def row(self) -> list[str]:
        figures = (self.median, min(self.values), max(self.values))
        return [self.name, str(len(self.values)), *(_shown(figure, self.unit) for figure in figures)]


@dataclass(frozen=True)
class Bound:
    """An upper limit for something measured. For what must never happen, the count must be at most 0."""

    promise: str
    most: float
    measured: float
    unit: str = ""

    @property
    def holds(self) -> bool:
        return self.measured <= self.most

    def row(self) -> list[str]:
        most, measured = (_shown(figure, self.unit) for figure in (self.most, self.measured))
        return [self.promise, f"at most {most}", measured, "holds" if self.holds else "does not hold"]


@dataclass
class Result:
    """All results of one benchmark. `raw` is stored with them but not printed."""

    series: list[Series] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def print(self) -> None:
        print(table([["measured", "runs", "median", "min", "max"], *(each.row() for each in self.series)]))
        print(table([["promise", "bound", "measured", ""], *(each.row() for each in self.bounds)]))
        for note in self.notes:
            print(f"  {note}")
        print(flush=True)

    def write(self, name: str, circumstances: Mapping[str, Any]) -> None:
        document = {
            "benchmark": name,
            "circumstances": circumstances,
            "bounds": [{**vars(each), "holds": each.holds} for each in self.bounds],
            "series": [vars(each) for each in self.series],
            "notes": self.notes,
            "raw": self.raw,
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def ratio(promise: str, most: float, measured: Series, floor: Series) -> Bound:
    """Promise a limit for the ratio of two series' medians."""
    return Bound(promise, most, measured.median / floor.median)


def interleaved(rounds: int, ways: Mapping[str, Callable[[], float]]) -> dict[str, Series]:
    """Measure every way once in each round, in alternating order, so that other load affects all of them.

    The first round fills caches and is not counted.
    """
    values: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            quiet()
            value = ways[name]()
            if number >= 0:
                values[name].append(value)
    return {name: Series(name, tuple(found)) for name, found in values.items()}


def _shown(figure: float, unit: str) -> str:
    decimals = {"s": 3, "ms": 1, "MiB": 1, "%": 2, "": 2}.get(unit, 0)
    whole = isinstance(figure, int) or (not unit and figure.is_integer())
    text = str(int(figure)) if whole else f"{figure:.{decimals}f}"
    return f"{text} {unit}".rstrip()


def table(rows: list[list[str]]) -> str:
    """Return rows with aligned columns. The first column, and a last one of text, are left-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = (
            cell.ljust(width) if column == 0 or cell.endswith(("holds", "hold")) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join((first, *others)).rstrip())
    return "\n".join(lines) + "\n"
