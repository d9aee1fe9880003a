"""The answer of `conformance` for people: what held."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.inspect.conformance.run import CaseResult
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import Rows

_HELD, _BROKEN = Text("held", "green"), Text("BROKEN", "bold red")


def held(results: Sequence[CaseResult]) -> bool:
    """Whether everything ended as it must."""
    return all(each.held for each in results)


def report(project: str, results: Sequence[CaseResult]) -> RenderableType:
    """Return the answer for people: what did not hold comes last, where a person looks first."""
    rows: list[list[Text | str]] = [
        [_HELD if each.held else _BROKEN, each.attempt.what, each.outcome]
        for each in sorted(results, key=lambda each: not each.held)
    ]
    broken = sum(not each.held for each in results)
    number = len(results)
    words = f"{project}: {number - broken} of {number} held"
    lines = [Text(""), Text(visible(words), "bold red" if broken else "bold green")]
    if broken:
        lines.append(Text("`clawker-fw drift` and `clawker-fw doctor` say what may be wrong. If not, report it."))
    return Group(Rows(("result", "what was tried", "what came of it"), rows), *lines)
