"""Rules as the command line names them: by words and options, or by a file to import."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from clawker_fw.errors import SettingsError

if TYPE_CHECKING:
    from clawker_fw.rules.importing import Imported
    from clawker_fw.settings.edit.edits import Removal


@contextmanager
def translated() -> Iterator[None]:
    """Raise what is wrong with the words as an error of the command line."""
    from clawker_fw.settings.edit.words import WordsError

    try:
        yield
    except WordsError as error:
        raise typer.BadParameter(str(error), param_hint=error.option or None) from error


def removals(
    names: Sequence[str], protocol: str | None, port: str | None, action: str | None, as_: str | None
) -> "list[Removal]":
    """Return which rules the command line asks to remove."""
    from clawker_fw.settings.edit import words

    with translated():
        return [_removal(words.named(name, protocol, port), action, as_) for name in names]


def _removal(named: dict[str, Any], action: str | None, as_: str | None) -> "Removal":
    """Return which rules to remove: what is not given may be anything. `named` is what a name and options give."""
    from clawker_fw.rules.rule import HOST, Protocol
    from clawker_fw.settings.edit.edits import Removal
    from clawker_fw.settings.edit.words import rule

    service = {"proto": Protocol.TCP, "port": 1} if named["dst"] == HOST else {}  # any: only its name counts
    allowing = rule({"dst": named["dst"], "as": as_, "allow_private": True, "force": True, **service})
    name = str(allowing.destination)
    wanted = rule(named | {"dst": name, "action": "deny"})  # which has neither a default protocol nor a port
    chosen = rule({"dst": name, "action": action, "force": True}).action if action else None
    return Removal(wanted.destination, wanted.protocol, wanted.written_port, chosen, allowing.host)


def imported_from(file: Path) -> "list[Imported]":
    """Return what becomes of each entry of a file, or of standard input if that is `-`.

    Raises:
        SettingsError: when it can't be read, or has no rules.
    """
    from clawker_fw.rules.importing import import_rules
    from clawker_fw.settings.document import document_of
    from clawker_fw.settings.files import read_text, text_of

    from_input = str(file) == "-"
    source = Path("standard input") if from_input else file
    try:
        text = text_of(sys.stdin.buffer.read(), source) if from_input else read_text(file)
    except SettingsError as error:
        raise SettingsError(
            "rules-not-importable",
            f"Nothing can be imported: {error.message}",
            hint="FILE is a file with rules, in UTF-8, or `-` for standard input.",
        ) from error
    document = document_of(text, source)
    try:
        return import_rules(document.values, document.place)
    except ValueError as error:
        raise SettingsError("rules-not-importable", f"{source} can't be imported: {error}.") from error
