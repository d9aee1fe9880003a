"""What fwctl has read of a program is told to it again, and nothing else is."""

import json

from clawker_fw.engine.helper_program import EvidenceStore

EVIDENCE = {"listeners": {"state": "5", "digest": "d"}}


def test_a_probe_is_told_what_the_last_answer_of_its_container_has_shown() -> None:
    """Each container has its own, and a newer one replaces it."""
    store = EvidenceStore()
    store.keep("one", {"live": {}, "evidence": {}})
    assert store.arguments("one") == []
    for evidence in (EVIDENCE, {"listeners": {"state": "6", "digest": "e"}}):
        store.keep("one", {"committed": True, "evidence": evidence})
        (argument,) = store.arguments("one")
        name, _, text = argument.partition("=")
        assert (name, json.loads(text)) == ("known", evidence)
    assert store.arguments("other") == []


def test_an_answer_without_evidence_changes_nothing() -> None:
    """So do other verbs, and what is no object."""
    store = EvidenceStore()
    store.keep("one", {"evidence": EVIDENCE})
    before = store.arguments("one")
    for answer in ({"taken": True}, {"evidence": None}, {}, [EVIDENCE], "evidence", None):
        store.keep("one", answer)
        assert store.arguments("one") == before
