"""The rules that a change adds and removes, compared with those last applied."""

from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import pipeline
from clawker_fw.stack import name_list
from clawker_fw.stack.files import public
from devkit import stacks
from devkit.memory.engine import MemoryEngine


def test_what_was_committed_is_unknown(memory: MemoryEngine) -> None:
    """Without a running stack or a readable record, the changes are unknown."""
    wanted = stacks.blueprint(memory.facts(), "a.test")
    assert pipeline.compare(memory, wanted).rule_changes is None
    stacks.converged(memory, wanted)
    files = memory.inside("clawker-coredns").files
    for content in (b"{}", b"[1]", b"no json", b"[" * 100_000):
        files[name_list.RULES] = public(content)
        seen = pipeline.compare(memory, wanted)
        assert seen.rule_changes is None
        assert {(each.sibling, each.field) for each in seen.diff.findings} == {(Sibling.COREDNS, name_list.RULES)}
    del files[name_list.RULES]
    assert pipeline.compare(memory, wanted).rule_changes is None
