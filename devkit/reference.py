"""Generates the pages in `docs/reference` from the code: commands, settings, errors, kinds of tampering, attacks.

The manual pages in `docs/man` and the schema of the settings file have the same sources. A table about attacks
is also in `docs/enforcement.md`.

`python -m devkit.reference` writes them, and `--check` checks that they are current. Nothing in `--help` or in the
settings' descriptions is repeated by hand.
"""

import argparse
import ast
import functools
import itertools
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path

import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from clawker_fw import errors
from clawker_fw.cli.app import PANELS
from clawker_fw.cli.main import app
from clawker_fw.errors import ExitCode, FirewallError
from clawker_fw.settings.environment import ENVIRONMENT_PREFIX
from clawker_fw.settings.example import example
from clawker_fw.settings.find import FILE_NAME
from clawker_fw.settings.preset import names, preset
from clawker_fw.settings.sources import KEY as INCLUDE
from devkit import manual, settings_schema
from devkit.attacks import GROUPS, Attack
from devkit.settings_schema import REPOSITORY, Schema
from devkit.tampering import TAMPERINGS

FOLDER = REPOSITORY / "docs" / "reference"
PACKAGE = REPOSITORY / "clawker_fw"

ERROR_ROWS = {"PullFailure": errors.EngineError}
"""Rows of tables of errors: the class of a row, and the class of the error made from it."""

_HEADING = "<!-- Written by `python -m devkit.reference`. Change the code it describes, not this page. -->\n\n"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def program() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)  # noqa: S101 - it has commands
    return group


def options_of(command: TyperCommand | TyperGroup) -> list[TyperOption]:
    return [each for each in command.params if isinstance(each, TyperOption)]


def arguments_of(command: TyperCommand | TyperGroup) -> list[TyperArgument]:
    return [each for each in command.params if isinstance(each, TyperArgument)]


def commands() -> dict[str, TyperCommand]:
    """Return the commands by name, in the order of the help. Names of subcommands include their group's."""
    found: dict[str, TyperCommand] = {}
    for name in itertools.chain.from_iterable(PANELS.values()):
        each = program().commands[name]
        if isinstance(each, TyperCommand):
            found[name] = each
        elif isinstance(each, TyperGroup):
            found |= {
                f"{name} {verb}": one for verb, one in each.commands.items() if isinstance(one, TyperCommand)
            }
    return found


def groups() -> dict[str, TyperGroup]:
    group = program()
    return {"": group, **{name: each for name, each in group.commands.items() if isinstance(each, TyperGroup)}}


def commands_page() -> str:
    group = program()
    parts = [
        f"# Commands\n\n`clawker-fw [OPTIONS] COMMAND [OPTIONS]`\n\n{group.help}\n",
        "`-h` or `--help` after any of them shows the same on the terminal.\n",
        f"## Before the command\n\n{_options(group)}",
    ]
    for name, command in commands().items():
        text, _, example = (command.help or "").partition("Example: ")
        parts.append(f"## `{name}`\n\n{text.strip()}\n")
        arguments = [[_code(str(each.metavar)), each.help or ""] for each in arguments_of(command)]
        if arguments:
            parts.append(_table(["argument", "means"], arguments))
        if options_of(command):
            parts.append(_options(command))
        parts.append(f"```console\n$ {example.strip()}\n```\n")
    meanings = dict(re.findall(r"(\d+) ([^,.]+)", program().epilog or ""))
    rows = [[str(code.value), meanings[str(code.value)]] for code in ExitCode]
    parts.append(f"## Exit codes\n\n{_table(['code', 'means'], rows)}")
    return _HEADING + "\n".join(parts)


def _options(command: TyperCommand | TyperGroup) -> str:
    rows = [
        [
            ", ".join(map(_code, (*option.opts, *option.secondary_opts))),
            _value_of(option),
            _code(str(option.envvar or "")),
            "" if option.default in {None, False} else _code(str(option.default)),
            option.help or "",
        ]
        for option in options_of(command)
    ]
    return _table(["option", "value", "variable", "default", "means"], rows)


def _value_of(option: TyperOption) -> str:
    kind = option.type_descriptor.annotation
    if option.is_flag:
        return ""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(_code(str(choice.value)) for choice in kind)
    return option.metavar or ("PATH" if kind is Path else "TEXT")


_DURATION = "duration: seconds, or with `ms`, `s`, `m`, `h`"
_TYPES = {
    "idle": _DURATION,
    "drain_timeout": _DURATION,
    "memory": "memory: bytes, or with `KiB`, `MiB`, `GiB`",
    "port": "number, or several as `FIRST-LAST`",
    "subnet": "IPv4 subnet",
    "rules": "list of rules",
    "path_rules": "list of paths",
    **dict.fromkeys(("never", "always"), "list of names or mappings"),
    "array": "list of text",
    "boolean": "`true` or `false`",
    "string": "text",
    "object": "mapping",
}
"""Types in words, by the names of fields, else by those of JSON."""


def _settings_tables() -> str:
    schema = settings_schema.schema()
    rows = [
        [_code(key), "" if key == INCLUDE else _code(_variable(key)), *_described(key, form, {"rules"})]
        for key, form in _settings(schema)
    ]
    lists = {name: each["items"] for name, each in schema["properties"].items() if "items" in each}
    parts = (
        _table(["key", "variable", "type", "default", "means"], rows),
        "## Rules\n\nAn entry of `rules` allows one destination, or denies it: see [Rules](../rules.md).\n",
        _fields_table(lists["rules"]),
        "## Presets and promises\n\nPromises are names or mappings: see [Presets and promises](../presets.md).\n",
        *(
            f"### `{name}`\n\n{_fields_table(each['anyOf'][-1])}"
            for name, each in lists.items()
            if "anyOf" in each
        ),
        f"## What `clawker-fw init` writes\n\n```yaml\n{example()}```\n",
    )
    return "\n".join(parts)


def _settings(section: Schema, prefix: str = "") -> Iterator[tuple[str, Schema]]:
    for name, form in section["properties"].items():
        if "properties" in form:
            yield from _settings(form, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", form


def _fields_table(section: Schema) -> str:
    required = {*section.get("required", ())}
    rows = [[_code(name), *_described(name, form, required)] for name, form in section["properties"].items()]
    return _table(["field", "type", "default", "means"], rows)


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def _described(key: str, form: Schema, required: Collection[str]) -> tuple[str, str, str]:
    """Return the type of a setting in words, its default, and its meaning."""
    name, default = key.rpartition(".")[2], form.get("default")
    value = form.get("anyOf", [form])[0]
    kind = value["type"] if isinstance(value["type"], str) else value["type"][0]
    words = _TYPES.get(name) or _TYPES.get(kind, "number")
    if choices := list(filter(None, value.get("enum", ()))):
        words = " or ".join(map(_code, choices))
    elif words == "number" and "minimum" in value:
        words = f"number, {value['minimum']} to {value['maximum']}"
    if key in required:
        usual = "none; it must be given"
    elif default is None:
        usual = ""
    elif words == _DURATION:
        usual = _code(f"{default:g}s")
    else:
        usual = _code(default if isinstance(default, str) else json.dumps(default))
    return words, usual, form.get("description", "")


_NO_HINT = "The lines of context have the cause."


def _errors_table() -> str:
    found: dict[str, tuple[int, list[str], list[str]]] = {}
    for code, exit_code, sentence, advice in raised():
        _, sentences, hints = found.setdefault(code, (exit_code, [], []))
        sentences.append(sentence)
        hints += filter(None, advice)
    rows = [
        [
            _code(code),
            str(number),
            *(" *or* ".join(dict.fromkeys(each)) for each in (sentences, hints or [_NO_HINT])),
        ]
        for code, (number, sentences, hints) in sorted(found.items())
    ]
    return _table(["code", "exit code", "says", "what to do"], rows)


def raised() -> Iterator[tuple[str, int, str, list[str]]]:
    """Yield code, exit code, sentence and hints of every error that the package can raise, from its source."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        assigned = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1):
                continue
            kind = _error_class(node.func, assigned)
            if kind is not None and _text(node.args[0]) != "…":  # a variable code comes from a row of a table
                hints = [each.value for each in node.keywords if each.arg == "hint"] or node.args[2:3]
                sentence = _readable(node.args[1]) or str(kind.__doc__)
                advice = [_hint(each, assigned) for each in hints]
                yield _text(node.args[0]), int(kind.exit_code), sentence, advice


def _error_class(node: ast.Name, assigned: Mapping[str, ast.expr]) -> type[FirewallError] | None:
    """Return the error that a name stands for, or the first of two that a variable may hold."""
    match assigned.get(node.id):
        case ast.IfExp(body=ast.Name() as node):
            pass
    kind = ERROR_ROWS.get(node.id) or getattr(errors, node.id, None)
    return kind if isinstance(kind, type) and issubclass(kind, FirewallError) else None


def _hint(node: ast.expr, assigned: Mapping[str, ast.expr]) -> str:
    match node:
        case ast.IfExp(body=body, orelse=orelse):
            return " *or* ".join(filter(None, (_hint(each, assigned) for each in (body, orelse))))
        case ast.Name(id=name) if name in assigned:
            return _hint(assigned[name], {})
    return _readable(node)


def _readable(node: ast.expr) -> str:
    """Return a string from the source, or an empty one if all of it is variable."""
    text = re.sub(r"\{\w+\}", "…", _text(node))
    return text if re.search(r"[a-z]", text) else ""


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return re.sub("…+", "…", "".join(_text(part) for part in parts))
    return "…"


PROGRAM, SETTINGS = "clawker-fw", FILE_NAME


def program_manual() -> str:
    text = re.sub("^## (?=`)", "### ", commands_page(), flags=re.MULTILINE).replace(
        "### ", "## Commands\n\n### ", 1
    )
    return manual.page(PROGRAM, 1, (program().help or "").rstrip("."), _manual("Synopsis", text, f"{SETTINGS}(5)"))


def settings_manual() -> str:
    purpose = "the settings of clawker-fw, and the destinations that containers may reach"
    return manual.page(
        SETTINGS,
        5,
        purpose,
        _manual("Description", _with_table("settings.md", "settings", _settings_tables), f"{PROGRAM}(1)"),
    )


def _manual(first: str, text: str, other: str) -> str:
    """Return a page of the reference as a manual page has it: with a first section in place of its title."""
    text = re.sub("<!-- .* -->\n\n?", "", f"\n{text}")
    parts = text.partition("\n# ")[2].partition("\n")[2].replace("\n##", "\n#")
    return f"# {first}\n{parts}\n# See also\n\n{other}, docker(1)\n"


def _tampering_tables() -> str:
    parts = []
    for title, ways in TAMPERINGS.items():
        rows = [
            [way.what if first else "", sign.sibling, sign.layer, _code(sign.named()), sign.cause, sign.action]
            for way in ways
            for first, sign in zip([True, *[False] * len(way.signs)], way.signs, strict=False)
        ]
        table = _table(["what is done", "found in", "layer", "field", "cause", "action"], rows)
        parts.append(f"## {title}\n\n{table}")
    return "\n".join(parts)


def _attacks_tables() -> str:
    parts = []
    for group in GROUPS:
        parts.append(f"## {group.title}\n\n**Tried.** {group.tried}\n\n**What holds.** {group.holds}\n")
        rows = [
            [each.what, each.result, _reached(each), each.reason or "", _code(each.name or "")]
            for each in group.attacks
        ]
        if rows:
            headings = ["an agent tries", "gets", "reached", "reason in the log", "name in the log"]
            parts.append(_table(headings, rows))
        if floods := [flood.name for flood in group.floods if not flood.control]:
            parts.append("".join(f"- {name}\n" for name in floods))
    return "\n".join(parts)


def _reached(attack: Attack) -> str:
    if attack.heard:
        return "the host"
    return "the origin" if attack.arrives else "no"


def _not_stopped_table() -> str:
    return _table(["what gets through", "why"], [row for group in GROUPS for row in group.gets_through.items()])


def _presets_table() -> str:
    rows = [
        [
            _code(each.name),
            str(each.version),
            each.purpose,
            "<br>".join(_code(str(rule)) for rule in each.rules),
            each.proof.value,
            each.left_out,
        ]
        for each in map(preset, names())
    ]
    return _table(["preset", "version", "for", "allows", "proof", "leaves out"], rows)


def _with_table(page: str, name: str, table: Callable[[], str]) -> str:
    begin, end = f"<!-- {name}: written by `python -m devkit.reference` -->\n", "<!-- end -->\n"
    before, _, rest = (FOLDER / page).read_text("utf-8").partition(begin)
    return f"{before}{begin}\n{table()}\n{end}{rest.partition(end)[2]}"


PAGES: Mapping[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "settings.schema.json": settings_schema.text,
    "../man/man1/clawker-fw.1": program_manual,
    "../man/man5/clawker-fw.yaml.5": settings_manual,
    **{
        page: functools.partial(_with_table, page, name, table)
        for page, name, table in (
            ("settings.md", "settings", _settings_tables),
            ("errors.md", "errors", _errors_table),
            ("tampering.md", "tampering", _tampering_tables),
            ("attacks.md", "attacks", _attacks_tables),
            ("../enforcement.md", "not stopped", _not_stopped_table),
            ("../presets.md", "presets", _presets_table),
        )
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devkit.reference", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not current")
    pages = {FOLDER / name: page() for name, page in PAGES.items()}
    if not parser.parse_args().check:
        for path, page in pages.items():
            path.write_text(page, "utf-8")
    elif stale := [path.name for path, page in pages.items() if path.read_text("utf-8") != page]:
        sys.exit(f"{', '.join(stale)}: not current; `python -m devkit.reference` writes them.")


if __name__ == "__main__":
    main()
