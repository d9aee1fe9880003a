"""Rules as the command line names them: by words and options, or by a file to import."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from clawker_fw.errors import SettingsError

if TYPE_CHECKING:
    from clawker_fw.rules.importing import Imported
    from clawker_fw.rules.rule import Rule
    from clawker_fw.settings.edit.edits import Addition, Removal

_HERE = "the command line"

_OPTIONS = {
    "add `force: true` to the rule": "use `--force`",
    "add `allow_private: true`": "use `--private`",
    "add `as`": "add `--as`",
}
"""What a sentence about a rule says, as it is on the command line."""


def additions(
    names: Sequence[str], protocol: str | None, port: str | None, fields: dict[str, Any]
) -> "list[Addition]":
    """Return the rules that the command line asks for. A field that is not given is None."""
    from clawker_fw.rules.until import parse_until_from
    from clawker_fw.settings.edit.edits import Addition

    given_fields = {name: value for name, value in fields.items() if value is not None}
    chosen = frozenset(given_fields)
    if "until" in given_fields:
        try:
            given_fields["until"] = parse_until_from(given_fields["until"], datetime.now(UTC))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--until") from error
    rules = [
        _rule(_named(name, protocol, port) | given_fields | _socket(name, protocol, fields)) for name in names
    ]
    return [Addition(rule, fields["note"], chosen=chosen) for rule in rules]


def _socket(name: str, protocol: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of WebSockets: `wss` allows them where TLS is looked into, which paths have done."""
    said = {(parse_name(name).proto or "").lower(), (protocol or "").lower()}
    return {"websocket": True} if "wss" in said and fields.get("path_rules") else {}


def path_rules(paths: Sequence[str] | None, methods: str | None) -> list[dict[str, Any]] | None:
    """Return the paths that the command line names, each for the same methods, as in the settings."""
    if not paths:
        if methods:
            raise typer.BadParameter("methods are for a path: add `--path`", param_hint="--methods")
        return None
    named = [each.strip() for each in (methods or "").split(",") if each.strip()]
    return [{"path": path, **({"methods": named} if named else {})} for path in paths]


def _rule(fields: dict[str, Any]) -> "Rule":
    """Return one rule, checked as in the settings.

    Raises:
        typer.BadParameter: when it is none.
    """
    from pydantic import ValidationError

    from clawker_fw.rules.schema import RuleEntry, mistake

    try:
        return RuleEntry.model_validate(fields).rule(_HERE)
    except ValidationError as error:
        sentence = "; ".join(map(mistake, error.errors(include_url=False)))
        for field, option in _OPTIONS.items():
            sentence = sentence.replace(field, option)
        raise typer.BadParameter(sentence) from error


def _named(name: str, protocol: str | None, port: str | None) -> dict[str, Any]:
    """Return the fields of a rule that a name and the options give."""
    from clawker_fw.rules.schema import ALIASES

    named = parse_name(name)
    fields: dict[str, Any] = {"dst": named.dst}
    of_both = [word and ALIASES.get(word.lower(), word.lower()) for word in (named.proto, protocol)]
    pairs: dict[str, tuple[object, object]] = {
        "proto": (of_both[0], of_both[1]),
        "port": (named.port, port_of(port)),
    }
    for option, (of_name, of_option) in pairs.items():
        if of_name is not None and of_option is not None and of_name != of_option:
            raise typer.BadParameter(f"{name!r} and `--{option} {of_option}` contradict each other")
        if (value := of_option if of_name is None else of_name) is not None:
            fields[option] = value
    return fields


def removals(
    names: Sequence[str], protocol: str | None, port: str | None, action: str | None, as_: str | None
) -> "list[Removal]":
    """Return which rules the command line asks to remove."""
    return [_removal(_named(name, protocol, port), action, as_) for name in names]


def _removal(named: dict[str, Any], action: str | None, as_: str | None) -> "Removal":
    """Return which rules to remove: what is not given may be anything. `named` is what a name and options give."""
    from clawker_fw.rules.rule import HOST, Protocol
    from clawker_fw.settings.edit.edits import Removal

    service = {"proto": Protocol.TCP, "port": 1} if named["dst"] == HOST else {}  # any: only its name counts
    allowing = _rule({"dst": named["dst"], "as": as_, "allow_private": True, "force": True, **service})
    name = str(allowing.destination)
    rule = _rule(named | {"dst": name, "action": "deny"})  # which has neither a default protocol nor a port
    chosen = _rule({"dst": name, "action": action, "force": True}).action if action else None
    return Removal(rule.destination, rule.protocol, rule.written_port, chosen, allowing.host)


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


_NAME = re.compile(
    r"(?:(?P<proto>[A-Za-z][A-Za-z0-9+.-]*)://)?(?P<dst>[0-9.]+/[0-9]+|[^/:\[\]]+)(?::(?P<port>[0-9]{1,5}(?:-[0-9]{1,5})?))?/?"
)
_URL = re.compile(r"(?P<proto>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.+)")


@dataclass(frozen=True, slots=True)
class Named:
    """What a user has named: `a.test`, `.a.test:8443`, `http://a.test`, `192.0.2.0/28`. Nothing is checked yet."""

    dst: str
    proto: str | None = None
    port: int | str | None = None


def parse_name(text: str) -> Named:
    """Split a destination into its parts. What has another form is a `dst`, which will be refused.

    The protocol is no part of that: it is none of the mistakes.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        url = _URL.fullmatch(text)
        return Named(url["rest"], url["proto"]) if url else Named(text)
    return Named(found["dst"], found["proto"], port_of(found["port"]))


def port_of(text: str | None) -> int | str | None:
    """Return a port as a number. Several ports stay text, as in the settings."""
    return int(text) if text and text.isdecimal() else text
