"""Editing the rules of a settings file: the effect on each rule and on the file."""

import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.background import in_background
from clawker_fw.errors import RefusedError, SettingsError
from clawker_fw.private_files import write_private
from clawker_fw.rules.destination import parse_destination
from clawker_fw.rules.rule import Protocol, RuleAction
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.edit import edits, rules_file
from clawker_fw.settings.edit.edits import Addition, EditOutcome, EditResult, Removal
from clawker_fw.settings.edit.rules_file import Edited, edit
from clawker_fw.settings.edit.splice import Edit, spliced
from devkit.requests import random_paths

CONCURRENT = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A settings file with two rules and a comment."""
    path = tmp_path / "clawker-fw.yaml"
    path.write_text("# mine\nrules:\n  - dst: a.test\n    note: x\n  - dst: .b.test\n    proto: http\n")
    return path


NOW = 1_800_000_000.0


def addition(dst: str, *, note: str | None = None, **fields: object) -> Addition:
    rule = RuleEntry.model_validate({"dst": dst, "note": note or "", **fields}).rule()
    return Addition(rule, note, frozenset(fields))


def add(path: Path, *additions: Addition, write: bool = True) -> Edited:
    return edit(path, {}, lambda there: edits.add(there, additions, NOW), write=write)


def remove(path: Path, *removals: Removal) -> Edited:
    return edit(path, {}, lambda there: edits.remove(there, removals, NOW), write=True)


def removal(dst: str, protocol: Protocol | None = None, port: int | None = None) -> Removal:
    return Removal(parse_destination(dst), protocol, port)


def said(results: Sequence[EditResult]) -> list[tuple[str, str, str]]:
    """Return the outcome for each rule, with its line."""
    return [(each.outcome.value, each.rule, each.place.rpartition(", ")[2]) for each in results]


LATE, LATER = "2098-01-01T00:00:00Z", "2099-01-01T00:00:00Z"


def test_what_is_not_asked_for_stays(path: Path) -> None:
    """Adding an existing rule changes only the given fields: expiry, private addresses, note."""
    path.write_text(
        f'rules: [{{dst: a.test, until: {LATE}, note: "n"}}, '
        "{dst: b.test, note: n}, {dst: c.test, allow_private: true}]"
    )
    done = add(
        path,
        addition("a.test", allow_private=True),
        addition("b.test", note="m"),
        addition("c.test", allow_private=False),
    )
    assert path.read_text() == (
        f"rules: [{{dst: a.test, until: {LATE}, note: n, allow_private: true}}, "
        "{dst: b.test, note: m}, {dst: c.test, allow_private: false}]"
    )
    assert said(done.results) == [
        ("changed", f"https a.test:443 private until {LATE}", "line 1"),
        ("changed", "https b.test:443", "line 1"),
        ("changed", "https c.test:443", "line 1"),
    ]
    assert done.results[0].changes == ("allow_private: true",)
    assert said(add(path, addition("a.test"), addition("b.test")).results) == [
        ("unchanged", f"https a.test:443 private until {LATE}", "line 1"),
        ("unchanged", "https b.test:443", "line 1"),
    ]


@pytest.mark.parametrize("action", ["allow", "deny"])
@pytest.mark.parametrize(("there", "told"), [("", "has no end"), (f", until: {LATER}", f"ends at {LATER}")])
def test_a_rule_never_ends_sooner(there: str, told: str, action: str, path: Path) -> None:
    """Without `--shorten`, an earlier expiry is an error that gives both times."""
    path.write_text(f"rules: [{{dst: a.test, action: {action}{there}}}]")
    before, shorter = path.read_text(), addition("a.test", action=action, until=LATE)
    with pytest.raises(RefusedError, match=f"{told}, and would end at {LATE}") as refused:
        add(path, shorter)
    assert (refused.value.code, path.read_text()) == ("rule-shortened", before)
    path.write_text(f"rules: [{{dst: a.test, action: {action}, until: {LATE}}}]")
    longer = addition("a.test", action=action, until=LATER), addition("a.test", action=action, until=None)
    assert [add(path, each).results[0].outcome for each in longer] == [EditOutcome.CHANGED] * 2
    assert "until" not in path.read_text()


def test_a_rule_that_has_ended_is_only_asked_for_with_a_new_end(path: Path) -> None:
    """Changing an expired rule without a new expiry is refused; of several, the latest expiry counts."""
    path.write_text("rules: [{dst: a.test, until: 2020-01-01T00:00:00Z}]")
    with pytest.raises(RefusedError, match="has ended") as refused:
        add(path, addition("a.test", allow_private=True))
    assert "--until never" in refused.value.hint
    assert add(path, addition("a.test", until=LATE)).results[0].changes == (f"until: {LATE}",)
    path.write_text("rules: [{dst: a.test, until: 2020-01-01T00:00:00Z}, {dst: a.test}]")
    assert {each.outcome for each in add(path, addition("a.test")).results} == {EditOutcome.UNCHANGED}


def test_every_rule_for_the_same_is_changed(path: Path) -> None:
    """All duplicates are changed; otherwise the one that expires later would still count."""
    path.write_text("rules: [{dst: a.test}, {dst: a.test, until: 2099-01-01T00:00:00Z}]")
    add(path, addition("a.test", until=None, allow_private=True))
    assert path.read_text().count("allow_private: true") == 2
    assert "until" not in path.read_text()


def test_rules_are_removed_by_what_is_given(path: Path) -> None:
    """A name's rules are removed, all or by protocol and port; `.b.test` is another name than `b.test`."""
    path.write_text(
        "rules:\n- dst: a.test\n- dst: a.test\n  port: 8443\n- dst: a.test\n  proto: http\n- dst: b.test\n"
    )
    done = remove(
        path, removal("a.test", Protocol.HTTPS, 8443), removal("a.test", Protocol.HTTP), removal(".b.test")
    )
    assert said(done.results) == [
        ("removed", "https a.test:8443", "line 3"),
        ("removed", "http a.test:80", "line 5"),
        ("not found", ".b.test", ""),
    ]
    assert path.read_text() == "rules:\n- dst: a.test\n- dst: b.test\n"
    only_denying = Removal(parse_destination("a.test"), action=RuleAction.DENY)
    assert said(remove(path, only_denying, removal("b.test"), removal("b.test")).results) == [
        ("not found", "deny a.test", ""),
        ("removed", "https b.test:443", "line 3"),
    ]


@pytest.fixture
def team(path: Path) -> Path:
    team = path.with_name("team.yaml")
    team.write_text("rules:\n  - dst: t.test\n")
    path.write_text("include: [team.yaml]\n")
    return team


def test_a_rule_of_an_included_file_is_unchanged_and_others_go_to_the_settings_file(
    path: Path, team: Path
) -> None:
    """An existing included rule is reported with its file; new rules go to the settings file."""
    done = add(path, addition("t.test"), addition("new.test"))
    assert said(done.results) == [
        ("unchanged", "https t.test:443", "line 2"),
        ("added", "https new.test:443", "line 3"),
    ]
    assert str(team) in done.results[0].place
    assert path.read_text() == "include: [team.yaml]\nrules:\n  - dst: new.test\n"
    assert team.read_text() == "rules:\n  - dst: t.test\n"


def test_a_rule_of_an_included_file_is_never_edited(path: Path, team: Path) -> None:
    """The error names the included file and line, and nothing else is changed."""
    with pytest.raises(RefusedError, match=rf"{team}, line 2\.$") as raised:
        add(path, addition("x.test"), addition("t.test", allow_private=True))
    assert raised.value.code == "rule-included"
    with pytest.raises(RefusedError, match=rf"{team}, line 2\.$"):
        remove(path, removal("t.test"))
    assert path.read_text() == "include: [team.yaml]\n"


def test_the_file_keeps_its_mode_attributes_line_breaks_and_link(path: Path, tmp_path: Path) -> None:
    """Links, line breaks, mode and owner of the file are preserved."""
    path.write_bytes(b"rules:\r\n- dst: a.test")
    path.chmod(0o640)
    if os.getuid() == 0:
        os.chown(path, 1234, 4321)
    attribute = "user.clawker"
    try:
        os.setxattr(path, attribute, b"1")
    except OSError:
        attribute = ""
    before = path.stat()
    link = tmp_path / "folder" / "link.yaml"
    link.parent.mkdir()
    link.symlink_to(path)
    done = add(link, addition("b.test"))
    assert link.is_symlink()
    assert path.read_bytes() == b"rules:\r\n- dst: a.test\r\n- dst: b.test"
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert not attribute or os.getxattr(path, attribute) == b"1"
    assert after.st_ino != before.st_ino
    assert said(done.results) == [("added", "https b.test:443", "line 3")]


def test_a_link_in_a_foreign_folder_is_not_followed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign folder's owner could redirect the link, so its target is not written."""
    victim = path.with_name("victim")
    victim.touch(0o600)
    path.chmod(0o644)
    before = victim.stat()

    def write(target: Path, content: bytes, prepare: Callable[[int], None]) -> None:
        def swapped(fresh: int) -> None:
            name = path.with_name(f".{path.name}.new")
            name.unlink()
            name.symlink_to(victim)
            prepare(fresh)

        write_private(target, content, prepare=swapped)

    monkeypatch.setattr(rules_file, "write_private", write)
    add(path, addition("b.test"))
    assert victim.stat() == before


def test_an_edit_that_changes_nothing_writes_nothing(path: Path) -> None:
    """The file is not rewritten, also without `write`."""

    def version() -> tuple[int, int]:
        return path.stat().st_ino, path.stat().st_mtime_ns

    before = version()
    assert not add(path, addition("a.test")).changed
    assert add(path, addition("x.test"), write=False).changed
    assert version() == before


def test_a_change_by_another_program_is_not_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Editors use no lock, so an edit made after reading the file survives, and nothing is left over."""

    def late(*_: object) -> None:  # just before the file is replaced
        path.write_text("rules: [{dst: other.test}]")

    monkeypatch.setattr(rules_file, "_resemble", late)
    with pytest.raises(RefusedError) as raised:
        add(path, addition("b.test"))
    assert raised.value.code == "settings-changed"
    assert path.read_text() == "rules: [{dst: other.test}]"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old file and nothing else."""
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError, match="No space left on device") as raised:
        add(path, addition("b.test"))
    assert (raised.value.code, raised.value.hint) == ("settings-unwritable", "")
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_no_edit_of_several_editors_is_lost(path: Path) -> None:
    """Eight editors add five rules each at the same time."""
    start = threading.Barrier(CONCURRENT)

    def edits_five(editor: int) -> None:
        start.wait(60)
        for number in range(5):
            add(path, addition(f"n{number}.p{editor}.test"))

    for each in [in_background(edits_five, editor) for editor in range(CONCURRENT)]:
        each.result(60)
    text = path.read_text()
    expected = {f"n{number}.p{editor}.test" for number in range(5) for editor in range(CONCURRENT)}
    assert {name for name in expected if f"dst: {name}\n" not in text} == set()
    assert text.startswith("# mine\nrules:\n  - dst: a.test\n    note: x\n")
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def paths_of(dst: str, *entries: Mapping[str, object]) -> Addition:
    rule = RuleEntry.model_validate({"dst": dst, "path_rules": entries}).rule()
    return Addition(rule, None, chosen=frozenset({"path_rules"}))


GET_X, Y = {"path": "/x", "methods": ["GET", "HEAD"]}, {"path": "/y"}
IN_FLOW = '{path: "/x", methods: [GET, HEAD]}, {path: "/y"}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "  - dst: p.test\n    git: {a/b: read}  # mine\n",
            f"  - dst: p.test\n    git: {{a/b: read}}  # mine\n    path_rules: [{IN_FLOW}]\n",
        ),
        (
            "  - dst: p.test\n    path_rules:  # these\n      - path: /a\n        methods: [PUT]\n    note: x\n",
            (
                "  - dst: p.test\n    path_rules:  # these\n      - path: /a\n        methods: [PUT]\n"
                '      - path: "/x"\n        methods: [GET, HEAD]\n      - path: "/y"\n    note: x\n'
            ),
        ),
        (
            "  - {dst: p.test, path_rules: [{path: /a}], note: x}\n",
            f'  - {{dst: p.test, path_rules: [{{path: "/a"}}, {IN_FLOW}], note: x}}\n',
        ),
    ],
)
def test_paths_are_added_to_those_of_a_rule(path: Path, before: str, after: str) -> None:
    """Paths are appended in the style of the existing ones, comments stay, and repeating changes nothing."""
    path.write_text(f"rules:\n{before}")
    done = add(path, paths_of("p.test", GET_X, Y))
    assert path.read_text() == f"rules:\n{after}"
    (result,) = done.results
    assert result.outcome in {"added", "changed"}
    assert result.changes in {(), ("path_rules: with /x, /y",)}
    assert add(path, paths_of("p.test", Y)).results[0].outcome == "unchanged"


def test_a_path_takes_nothing_from_a_rule_for_the_whole_host(path: Path) -> None:
    """Adding a path to a rule for a whole host would narrow it, so it is refused."""
    before = path.read_text()
    with pytest.raises(RefusedError) as caught:
        add(path, paths_of("a.test", Y))
    assert caught.value.code == "rule-narrowed"
    assert path.read_text() == before


@given(st.randoms(use_true_random=False), st.booleans())
def test_a_rule_about_paths_is_written_as_it_is_meant(chosen: random.Random, verify: bool) -> None:  # noqa: FBT001
    """A written rule is read back as the same rule."""
    _, paths = random_paths(chosen)
    rule = replace(RuleEntry(dst="p.test").rule(), paths=replace(paths, verify=verify))
    text = spliced("", Edit(added=[Addition(rule).fields]), "written")
    (entry,) = yaml.safe_load(text)["rules"]
    assert RuleEntry.model_validate(entry).rule() == rule
