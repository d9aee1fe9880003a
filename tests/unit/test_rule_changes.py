"""The plan of rules: what a change adds and removes, from what was committed last."""

from hypothesis import given

from clawker_fw.model import Sibling
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.compare.rules import RuleChanges, rule_changes
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack import rule_record
from clawker_fw.stack.files import public
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.strategies import rule_sets

OLD = {"dst": "old.test", "proto": "http"}
NEW = {"dst": "new.test", "until": "2099-01-01T00:00:00Z"}


def test_rules_that_are_added_and_removed(memory: MemoryEngine, release: Release) -> None:
    """Against what is committed, not against what is written elsewhere. A changed rule is removed and added."""
    changing = {"dst": "changing.test"}
    stacks.converged(memory, stacks.blueprint(memory.facts(), "same.test", OLD, changing, release=release))
    private = {**changing, "allow_private": True}
    wanted = stacks.blueprint(memory.facts(), "same.test", NEW, private, release=release)
    assert pipeline.compare(memory, wanted).rule_changes == RuleChanges(
        ("https changing.test:443 private", "https new.test:443 until 2099-01-01T00:00:00Z"),
        ("https changing.test:443", "http old.test:80"),
    )
    stacks.converged(memory, wanted)
    assert not pipeline.compare(memory, wanted).rule_changes


def test_what_was_committed_is_unknown(memory: MemoryEngine, release: Release) -> None:
    """Nothing is known of a stack that is not up, or whose record can't be read."""
    wanted = stacks.blueprint(memory.facts(), "a.test", release=release)
    assert pipeline.compare(memory, wanted).rule_changes is None
    stacks.converged(memory, wanted)
    files = memory.inside("clawker-coredns").files
    for content in (b"{}", b"[1]", b"no json", b"[" * 100_000):
        files[rule_record.RULES] = public(content)
        seen = pipeline.compare(memory, wanted)
        assert seen.rule_changes is None
        assert {(each.sibling, each.field) for each in seen.diff.findings} == {
            (Sibling.COREDNS, rule_record.RULES)
        }
    del files[rule_record.RULES]
    assert rule_changes(pipeline.compare(memory, wanted).observed, wanted.rules) is None


@given(rule_sets())
def test_rules_that_differ_have_different_lines(rules: RuleSet) -> None:
    """So no change is missing in the plan."""
    lines = [str(rule) for rule in rules.rules]
    assert len(set(lines)) == len(lines)
    assert rule_record.recorded({rule_record.RULES: public(rule_record.content(rules))}) == tuple(lines)
