"""Many hosts for people: it fits 80 columns unless a name does not."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.fleet.row import HostVerdict, NodeState
from clawker_fw.model import Diff
from clawker_fw.report import text
from clawker_fw.report.fleet import WORDS, FleetStatusDocument, Row
from clawker_fw.report.spans import counted
from clawker_fw.report.terminal import visible
from clawker_fw.stack.release import build_name

_DIGEST_SHOWN = 7
_MOST_FINDINGS = 12
_MOST_REASONS = 4
_MARK = " !"

_STYLES = {
    HostVerdict.CURRENT: "bold green",
    HostVerdict.DRIFTED: "bold yellow",
    HostVerdict.NO_STACK: "bold yellow",
}
_BAD = "bold red"


def status_report(fleet: FleetStatusDocument) -> RenderableType:
    """Return how many hosts are current, a table with a row for each, then a line for each that is not current."""
    rows: list[list[Text | str]] = [
        [
            each.name,
            _verdict(each),
            _release(each),
            _rules(each),
            _agents(each),
            _proven(each),
        ]
        for each in fleet.hosts
    ]
    parts: list[RenderableType] = [
        Text(fleet.summary),
        *_left_out(fleet),
        Text(""),
        text.Rows(("host", "verdict", "release", "rules", "agents", "proven"), rows),
    ]
    if legend := list(_legend(fleet)):
        parts += [Text(each, "dim") for each in legend]
    if told := [line for each in fleet.hosts if each.verdict is not HostVerdict.CURRENT for line in _why(each)]:
        parts += [Text(""), *told]
    return Group(*parts)


def diff_report(fleet: FleetStatusDocument) -> RenderableType:
    """Return how many hosts are current, then for each other one what a run would mean, and its fields."""
    parts: list[RenderableType] = [Text(fleet.summary), *_left_out(fleet)]
    for each in fleet.hosts:
        if each.verdict is HostVerdict.CURRENT:
            continue
        parts += [Text(""), Text.assemble((visible(each.name), "bold"), "  ", _verdict(each))]
        parts += [Text(visible(f"  {line}")) for line in _reasons(each)]
        if each.differences and each.verdict is not HostVerdict.NO_STACK:
            parts += _fields(each)
    return Group(*parts)


def _fields(row: Row) -> Iterator[RenderableType]:
    """Yield the first differences of a host by layer, and how many more there are."""
    shown = row.differences[:_MOST_FINDINGS]
    yield text.fields_report(Diff(row.differences, row.siblings), shown)
    if more := len(row.differences) - len(shown):
        differ = "differs" if more == 1 else "differ"
        yield Text(f"{counted(more, 'more field')} {differ}; `drift` on that host shows all.", "dim")


def _why(row: Row) -> Iterator[Text]:
    """Yield why a host is not current, in short: the first line after its name, and the cause of an error."""
    reasons = list(_reasons(row, hints=False))
    if reasons:
        yield Text.assemble((visible(row.name), "bold"), visible(f": {reasons[0]}"))
        yield from (Text(visible(f"  {line.strip()}")) for line in reasons[1:_MOST_REASONS])


def _reasons(row: Row, *, hints: bool = True) -> Iterator[str]:
    """Yield why a host is not current, and what the manager of its swarm knows of it."""
    if row.error:
        yield row.error.message
        context = [line for each in row.error.context for line in each.splitlines()]
        yield from (f"  {line}" for line in (context if hints else context[:1]))
        if row.error.hint and hints:
            yield f"  {row.error.hint}"
    if row.busy:
        yield row.busy
    yield from (f"Agent {each} has a way around the firewall." for each in row.open_agents)
    yield from row.summary
    yield from (f"Made from another settings file: {each}" for each in row.made_from)
    if row.node:
        yield from _node(row.node)


def _node(node: NodeState) -> Iterator[str]:
    yield f"In the swarm: {node.state}, {node.availability}, {node.role}."
    if node.proven:
        yield f"Its watcher says that the stack is current, since {node.watcher_since or 'an unknown time'}."
    elif node.watcher:
        yield f"Its watcher's task is {node.watcher}: {node.watcher_says}".rstrip(": ")


def _verdict(row: Row) -> Text:
    return Text(WORDS[row.verdict], _STYLES.get(row.verdict, _BAD))


def _release(row: Row) -> str:
    if row.release is None:
        return "-"
    if row.release.installed:
        return row.release.version or "installed"
    return build_name(row.release.version, row.release.build) + _MARK


def _rules(row: Row) -> str:
    if row.rules is None:
        return "-"
    return row.rules.digest[:_DIGEST_SHOWN] + (_MARK if row.rules.others_than_most else "")


def _agents(row: Row) -> str:
    if row.agents is None:
        return "-"
    return f"{row.agents:,}" + (f", {len(row.open_agents):,} open" if row.open_agents else "")


def _proven(row: Row) -> str:
    if row.proven is None:
        return "-"
    return "now" if row.proven.by == "comparison" else "by its watcher"


def _legend(fleet: FleetStatusDocument) -> Iterator[str]:
    if any(each.release and not each.release.installed for each in fleet.hosts):
        yield "  ! after a release: not the installed one"
    if any(each.rules and each.rules.others_than_most for each in fleet.hosts):
        yield "  ! after rules: other ones than most hosts serve"


def _left_out(fleet: FleetStatusDocument) -> Iterator[Text]:
    for each in fleet.left_out:
        yield Text(visible(f"Left out: the context {each.name} is of the same engine as {each.same_as}."), "dim")
