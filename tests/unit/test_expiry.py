"""The firewall containers' files when rules expire."""

import hashlib
import json
from typing import Any

import pytest

from clawker_fw.model.differences import Verdict
from clawker_fw.model.stacks import Sibling, Slots
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.converge import converge
from clawker_fw.reconcile.pipeline import compare
from clawker_fw.reconcile.steps import Commit, ConvergeOptions, Step
from clawker_fw.rules.until import rfc3339
from clawker_fw.stack.container import COMMITTED
from clawker_fw.stack.expiry import EXPIRIES, MOST_EXPIRIES, known_expiries
from clawker_fw.stack.files import public
from devkit import stacks
from devkit.memory.container import MemoryContainer
from devkit.memory.engine import MemoryEngine

SOON, LATER = 4_000_000_000, 4_000_000_600


def applied(before: bytes, changes: list[dict[str, Any]]) -> bytes:
    """Return the text after `fwctl` has applied expiries."""
    after, position = b"", 0
    for each in changes:
        assert position <= each["from"] <= each["to"] <= len(before)
        after += before[position : each["from"]] + each["text"].encode()
        position = each["to"]
    return after + before[position:]


ENTRIES: list[dict[str, Any]] = [
    {"dst": "a.test"},
    {"dst": "b.test", "until": rfc3339(SOON)},
    {"dst": "c.test", "proto": "http", "port": 8080, "until": rfc3339(LATER)},
    {"dst": "d.test", "proto": "udp", "port": 443, "until": rfc3339(SOON)},
    {"dst": "e.test", "proto": "tcp", "port": 5432, "until": rfc3339(LATER)},
    {"dst": ".f.test"},
    {"dst": "x.f.test", "action": "deny", "until": rfc3339(SOON)},
    {"dst": ".g.test", "until": rfc3339(LATER)},
    {"dst": "h.test", "proto": "tcp", "port": 22},
    {"dst": "h.test", "action": "deny", "until": rfc3339(LATER)},
]


@pytest.mark.parametrize("sibling", Sibling)
def test_after_an_end_the_files_are_what_is_desired_then(sibling: Sibling) -> None:
    """After an expiry, files, digests and recorded rules equal the desired ones byte for byte."""
    memory = MemoryEngine()
    now = stacks.blueprint(memory.facts(), *ENTRIES)
    stacks.converged(memory, now)
    seen = compare(memory, now)
    before = seen.desired.siblings[sibling]
    for moment in (SOON, LATER):
        seen = compare(memory, now.at(moment))
        after = seen.desired_in(Slots(0, 0)).siblings[sibling]
        ends = json.loads(before.hot[EXPIRIES].content)["ends"]
        assert ends[0]["at"] == moment
        files = {path: file.content for path, file in before.hot.items()}
        for path, change in ends[0]["files"].items():
            files[f"hot/{path}"] = applied(files[f"hot/{path}"], change["parts"])
            assert hashlib.sha256(files[f"hot/{path}"]).hexdigest() == change["sha256"]
        raw = before.hot[EXPIRIES].content.decode().removeprefix('{"ends":[').removesuffix("]}")
        first = json.dumps(ends[0], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert raw.startswith(first)
        files[EXPIRIES] = f'{{"ends":[{raw.removeprefix(first).removeprefix(",")}]}}'.encode()
        assert files == {path: file.content for path, file in after.hot.items()}
        assert ends[0]["live"] == dict(after.live)
        assert ends[0]["rules"] == {"count": after.rules.count, "sha256": after.rules.digest}
        assert before.hot[EXPIRIES] == public(before.hot[EXPIRIES].content)
        before = after
    assert before.hot[EXPIRIES].content == b'{"ends":[]}'


def test_the_next_ends_are_known() -> None:
    """Files list only the next expiries, to stay short."""
    memory = MemoryEngine()
    every = ({"dst": f"n{number}.test", "until": rfc3339(SOON + number)} for number in range(MOST_EXPIRIES + 8))
    now = stacks.blueprint(memory.facts(), *every)
    assert list(now.later) == [SOON + number for number in range(MOST_EXPIRIES)]
    seen = compare(memory, now)
    assert seen.desired.unknown_ends == 8
    told = [each.message for each in seen.advice if each.code == "rules-end-later"]
    assert [each.partition(" and end ")[0] for each in told] == [
        "Rules end at 40 times. Envoy and CoreDNS know the next 32"
    ]
    assert [known_expiries(rules) for rules in (0, 10, 1000, 10_000, 100_000)] == [32, 32, 20, 2, 1]


class Ending(MemoryEngine):
    """An engine whose containers expire rules at their start, as `fwctl serve` does."""

    moment = 0

    def start(self, container: str) -> None:
        """Start it, and expire the rules in its files."""
        super().start(container)
        inside = self.inside(container)
        if EXPIRIES in inside.files:
            end_rules(inside, self.moment)


def end_rules(inside: MemoryContainer, moment: int) -> None:
    record, ends = json.loads(inside.files[COMMITTED].content), json.loads(inside.files[EXPIRIES].content)["ends"]
    while ends and ends[0]["at"] <= moment:
        first, *ends = ends
        for path, change in first["files"].items():
            file = inside.files[f"hot/{path}"]
            inside.files[f"hot/{path}"] = file.saying(applied(file.content, change["parts"]))
        inside.live, record["live"], record["rules"] = dict(first["live"]), first["live"], first["rules"]
    left = json.dumps({"ends": ends}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    inside.files[EXPIRIES] = inside.files[EXPIRIES].saying(left)
    for each in record["files"]:
        each["sha256"] = hashlib.sha256(inside.files[f"hot/{each['path']}"].content).hexdigest()
        inside.files[f"good/hot/{each['path']}"] = inside.files[f"hot/{each['path']}"]
    inside.files[COMMITTED] = public(json.dumps(record).encode())


def test_a_rule_that_ends_during_a_run() -> None:
    """Containers that expired a rule before the check are right: the run succeeds without applying files."""
    engine = Ending()
    engine.moment = SOON
    wanted = stacks.blueprint(engine.facts(), *ENTRIES)
    steps: list[Step] = []
    context = RunContext(lambda progress: steps.append(progress.step), wall=lambda: SOON)
    done = converge(engine, lambda: wanted, ConvergeOptions(), context)
    assert done.diff.verdict is Verdict.CURRENT
    assert done.blueprint.rules == wanted.rules.at(SOON)
    assert not [each for each in steps if isinstance(each, Commit)]


def test_a_rule_that_siblings_have_not_ended_is_ended_by_a_run() -> None:
    """A rule that expires during a run's first round is removed in the second."""
    memory = MemoryEngine()
    wanted = stacks.blueprint(memory.facts(), *ENTRIES)
    done = converge(memory, lambda: wanted, ConvergeOptions(), RunContext(lambda _: None, wall=lambda: LATER))
    assert done.diff.verdict is Verdict.CURRENT
    assert memory.inside("clawker-envoy").files[EXPIRIES].content == b'{"ends":[]}'
