"""The command that shows what the siblings write."""

import heapq
import itertools
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import completion
from clawker_fw.cli.app import Panel, app
from clawker_fw.cli.comparing import print_json
from clawker_fw.cli.parameters import Format, FormatOption, Options, unparsed
from clawker_fw.errors import NotFoundError, RefusedError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.engine.port import EngineReader
    from clawker_fw.model import ContainerSummary

_MOST_LINES = 1_000_000
_MILLISECONDS = 23
"""The length of a time to the millisecond, without its zone."""

_SIBLINGS = ("envoy", "coredns")


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST_LINES):
        raise typer.BadParameter(f"a number of lines is from 0 to {_MOST_LINES:,}")
    return int(text)


def _checked(sibling: str | None) -> str | None:
    if sibling is not None and sibling not in _SIBLINGS:
        raise typer.BadParameter(f"a sibling is envoy or coredns, not {sibling}")
    return sibling


@app.command(rich_help_panel=Panel.ANSWERS)
def logs(
    context: typer.Context,
    sibling: Annotated[
        str | None,
        typer.Argument(
            metavar="[envoy|coredns]", callback=_checked, autocompletion=completion.siblings, hidden=True
        ),
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue with what is written from now on.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", metavar="N", parser=_lines, help="How many of the last lines of each sibling.")
    ] = unparsed("100"),
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show what Envoy and CoreDNS write: refusals and own problems.

    Lines of both are in the order of their times, also those of a sibling that is just being replaced. With
    `--format json`, each line is one JSON object.

    Example: clawker-fw logs envoy --follow
    """
    from clawker_fw.cli import connection

    chosen: Options = context.obj
    engine = connection.connect_reader(chosen)
    found = _containers(engine, chosen.project, sibling)
    if not found:
        raise RefusedError(
            "not-up",
            f"The stack {chosen.project} has no {sibling or 'sibling'} here.",
            hint="Start it with `clawker-fw run`; `clawker-fw ps` lists the stacks of this engine.",
        )
    lines = _followed(engine, found, tail) if follow else _merged(engine, found, tail)
    with suppress(KeyboardInterrupt):
        for name, line in lines:
            _print(name, line, format_)


def _containers(engine: "EngineReader", project: str, sibling: str | None) -> "list[ContainerSummary]":
    """Return the siblings' containers, also those of a replacement under way."""
    from clawker_fw.stack.ownership import sibling_of

    wanted = (sibling,) if sibling else _SIBLINGS
    return [each for each in engine.listing() if sibling_of(each, project) in wanted]


def _merged(engine: "EngineReader", found: "list[ContainerSummary]", tail: int) -> Iterator[tuple[str, str]]:
    """Yield the lines of several containers in the order of their times."""

    def lines(each: "ContainerSummary") -> Iterator[tuple[str, str]]:
        with engine.log(each.id, tail, errors=True) as written:
            for line in itertools.chain.from_iterable(written):
                yield each.name, line.decode(errors="replace").removesuffix("\n")

    yield from heapq.merge(*map(lines, found), key=lambda pair: pair[1].partition(" ")[0])


def _followed(engine: "EngineReader", found: "list[ContainerSummary]", tail: int) -> Iterator[tuple[str, str]]:
    """Yield the lines of several containers as they come, until all have stopped.

    Raises:
        EngineError: when a log can't be followed any more.
    """
    arrived: queue.SimpleQueue[tuple[str, str] | BaseException | None] = queue.SimpleQueue()

    def forward(each: "ContainerSummary") -> None:
        end: BaseException | None = None
        try:
            with engine.log(each.id, tail, follow=True, errors=True) as written:
                for line in itertools.chain.from_iterable(written):
                    arrived.put((each.name, line.decode(errors="replace").removesuffix("\n")))
        except NotFoundError:
            pass  # it was removed since it was listed, which is an end like any other
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            end = error
        arrived.put(end)

    for each in found:
        threading.Thread(target=forward, args=(each,), daemon=True).start()
    left = len(found)
    while left:
        match arrived.get():
            case None:
                left -= 1
            case BaseException() as error:
                raise error
            case pair:
                yield pair


def _print(name: str, line: str, format_: Format) -> None:
    """Print one line: its time, its container, and what was written."""
    time, _, words = line.partition(" ")
    short = f"{time[:_MILLISECONDS]}Z" if time.endswith("Z") else time
    if format_ is Format.JSON:
        from clawker_fw.report.documents.logs import LogLine

        print_json(LogLine(time, name, words), indent=None)
    else:
        terminal.answer(f"{short}  {name}  {words}")
