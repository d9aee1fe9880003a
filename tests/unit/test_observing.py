"""Observing: what passes, when it ends, and the rules that are suggested for it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.denials.advice import Adviser
from clawker_fw.denials.answer import Denial
from clawker_fw.denials.refusal import Counted, Refusal
from clawker_fw.denials.suggesting import Suggestions, suggest
from clawker_fw.diagnose.explanation import Explainer
from clawker_fw.errors import SettingsError
from clawker_fw.model.differences import Verdict
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.pipeline import compare
from clawker_fw.reconcile.summarize import ends_connections
from clawker_fw.rules.observing import Observing
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.settings.edit import rules_file
from clawker_fw.settings.preset import names as preset_names
from clawker_fw.settings.preset import preset
from clawker_fw.settings.validation import load_settings
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.stacks import rule_set
from tests.unit.test_expiry import end_rules

NOW, END = 1_800_000_000, 1_800_000_600
HTTPS, HTTP = (Protocol.HTTPS, 443), (Protocol.HTTP, 80)
RULES = ("a.test", {"dst": ".deny.test", "action": "deny"}, {"dst": "db.test", "proto": "tcp", "port": 5432})
KEYS = (HTTPS, HTTP, (Protocol.HTTPS, 8443), (Protocol.TCP, 443), (Protocol.HTTP, 443))
UNFIT = ("co.uk", "x.internal", "x.deny.test", "xn--a.test")
HOSTS = [rule.destination.name for name in ("pip", "npm", "go") for rule in preset(name).rules]
HOSTS += [*(f"{label}.cdn.test" for label in "xyzw"), "a.test", "db.test", *UNFIT]


def observed(*rules: object) -> RuleSet:
    return replace(rule_set(*rules)[1], observing=Observing(END))  # type: ignore[arg-type]  # as it takes them


@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [
        ("b.test", HTTPS, Reason.OBSERVED),
        ("B.Test", HTTP, Reason.OBSERVED),
        ("x.a.test", HTTPS, Reason.OBSERVED),
        ("b.test", (Protocol.HTTPS, 8443), Reason.NO_RULE),
        ("b.test", (Protocol.TCP, 443), Reason.NO_RULE),
        ("a.test", HTTPS, None),
        ("a.test", HTTP, Reason.WRONG_PORT),
        ("db.test", HTTPS, Reason.WRONG_PORT),
        ("x.deny.test", HTTPS, Reason.DENIED),
        ("printer.local", HTTPS, Reason.NO_RULE),
        ("host", HTTPS, Reason.NO_RULE),
        ("10.0.0.1", HTTP, Reason.NO_RULE),
        ("clawker.internal", HTTP, Reason.NO_RULE),
    ],
)
def test_what_passes(name: str, key: tuple[Protocol, int], reason: Reason | None) -> None:
    """Only what nothing but the lack of a rule refuses, and only until the end."""
    rules = observed(*RULES)
    assert Policy(rules).decide(name, *key).reason is reason
    if reason is Reason.OBSERVED:
        assert Policy(rules.at(END)).decide(name, *key).reason is Reason.NO_RULE


@pytest.mark.parametrize(
    "written", ["observe:", "observe: {}", "observe: {until: }", "observe: {until: 30m}", "observe: []"]
)
def test_a_blank_never_opens_anything(written: str, tmp_path: Path) -> None:
    """Without a time, `observe` is an error."""
    file = tmp_path / "clawker-fw.yaml"
    file.write_text(f"rules: []\n{written}\n")
    with pytest.raises(SettingsError):
        load_settings(file, {})


def test_never_is_never_observed(tmp_path: Path) -> None:
    """Neither names in it, nor what it says about every name."""
    file = tmp_path / "clawker-fw.yaml"
    file.write_text("rules: []\nnever: [.corp.example, {proto: http}]\nobserve: {until: 2999-01-01T00:00:00Z}\n")
    policy = Policy(load_settings(file, {}).rules)
    found = {name: policy.decide(name, *HTTPS).reason for name in ("x.corp.example", "b.test")}
    assert found == {"x.corp.example": Reason.NO_RULE, "b.test": Reason.OBSERVED}
    assert policy.decide("b.test", *HTTP).reason is Reason.NO_RULE


def test_its_end_is_known_and_no_tampering(memory: MemoryEngine, up: Blueprint) -> None:
    """Containers end it among any number of rules that end sooner. Its begin cuts nothing, and its end does."""
    ending = [{"dst": f"{number}.test", "until": f"2027-01-15T08:00:{number:02}Z"} for number in range(40)]
    wanted = [replace(up, rules=each) for each in (rule_set("a.test", *ending)[1], observed("a.test", *ending))]
    before, now = (compare(memory, each).desired.siblings[Sibling.ENVOY].hot for each in wanted)
    assert not ends_connections(before, now)
    assert ends_connections(now, before)
    stacks.converged(memory, wanted[1])
    seen = compare(memory, wanted[1])
    assert (seen.verdict, seen.diff.findings) == (Verdict.OBSERVING, ())
    assert "observing" in {each.code for each in seen.notices}
    for sibling in Sibling:
        end_rules(memory.inside(f"clawker-{sibling}"), END)
    after = compare(memory, wanted[1].at(END))
    assert (after.verdict, after.diff.findings) == (Verdict.CURRENT, ())


def suggested(rules: RuleSet, wanted: Sequence[tuple[str, Protocol, int]]) -> Suggestions:
    """Return the suggestions for what is on record of requests while rules are observed."""
    explainer = Explainer(replace(rules, observing=None), NOW)
    policy, adviser = Policy(rules), Adviser(explainer)
    found = []
    for name, protocol, port in wanted:
        reason = policy.decide(name, protocol, port).reason
        record = {Protocol.HTTPS: "tls"}.get(protocol, protocol.value)
        if reason:
            counted = Counted(
                Refusal(Sibling.ENVOY, "10.213.0.2", record, name, port, reason), 1, "2027-01-15T08:00:00Z"
            )
            found.append(Denial(counted, "builder", adviser.advise(counted)))
    return suggest(found, explainer, map(preset, preset_names()))


def applied(found: Suggestions, folder: Path) -> Policy:
    """Return the policy of a settings file to which suggestions are added."""
    file = folder / "clawker-fw.yaml"
    rules = "".join(f"  - {json.dumps({'dst': rule} if isinstance(rule, str) else rule)}\n" for rule in RULES)
    file.write_text(f"presets: [cargo]\nrules:\n{rules}")
    done = rules_file.edit(file, {}, lambda there: found.added_to(there, NOW), write=False)
    return Policy(done.after.rules)


@given(st.lists(st.tuples(st.sampled_from(HOSTS), st.sampled_from(KEYS[:3]))))
def test_suggestions_allow_what_was_wanted_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, traffic: list[tuple[str, tuple[Protocol, int]]]
) -> None:
    """Applied, they allow every request that passed or was refused, except for names unfit for a command."""
    folder, rules = tmp_path_factory.mktemp("settings"), observed(*RULES)
    wanted = [(name, *key) for name, key in traffic]
    found = suggested(rules, wanted)
    before, after = applied(Suggestions(), folder), applied(found, folder)
    for name in {*HOSTS, "other.test", "v.cdn.test"}:
        for key in KEYS:
            meant = before.decide(name, *key).allowed or ((name, *key) in wanted and name not in UNFIT)
            assert after.decide(name, *key).allowed is meant, (name, key)
    assert {need.target.name for need in found.left_out} == {name for name, *_ in wanted if name in UNFIT}


def test_presets_and_subtrees() -> None:
    """A preset is suggested with all of its hosts, and a subtree only offered, with what else it opens."""
    wanted = [(name, *HTTPS) for name in (*HOSTS[:4], *(f"{label}.cdn.test" for label in "xyzw"))]
    found = suggested(observed(), wanted)
    assert {use.name: len(use.wanted) for use in found.presets} == {"npm": 1, "pip": 2}
    cdn = [f"https://{label}.cdn.test" for label in "wxyz"]
    assert [need.url for need in found.rules] == ["https://proxy.golang.org", *cdn]
    (offer,) = found.subtrees
    assert (offer.dst, sorted(offer.replaces)) == (".cdn.test", cdn)
    assert offer.text == "This also allows the same for every other name in .cdn.test."
