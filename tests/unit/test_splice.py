"""Editing the list of rules in a text: only the edited part changes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.errors import SettingsError
from clawker_fw.settings.document import parse
from clawker_fw.settings.edit import splice
from clawker_fw.settings.edit.splice import Edit, spliced

NEW = {"dst": "new.test", "proto": "http"}
TIME = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["libyaml", "python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML, whose marks must agree."""
    if request.param == "python":
        monkeypatch.setattr(splice, "LOADER", yaml.SafeLoader)


ADDED = {
    "block": (
        "rules:\n  - dst: a.test\nx: 1\n",
        "rules:\n  - dst: a.test\n  - dst: new.test\n    proto: http\nx: 1\n",
    ),
    "CRLF": (
        "rules:\r\n  - {dst: a.test}\r\n",
        "rules:\r\n  - {dst: a.test}\r\n  - {dst: new.test, proto: http}\r\n",
    ),
    "no last line break": (
        "rules:\n  - dst: a.test",
        "rules:\n  - dst: a.test\n  - dst: new.test\n    proto: http",
    ),
    "a note of several lines": (
        "rules:\n- dst: a.test\n  note: |\n    x\n\n# z\n",
        "rules:\n- dst: a.test\n  note: |\n    x\n- dst: new.test\n  proto: http\n\n# z\n",
    ),
    "flow": ("rules: [{dst: a.test}]\n", "rules: [{dst: a.test}, {dst: new.test, proto: http}]\n"),
    "flow with a comma": (
        "rules: [{dst: a.test}, ]\n",
        "rules: [{dst: a.test}, {dst: new.test, proto: http}]\n",
    ),
    "empty": ("rules: []  # none\nx: 1\n", "rules:  # none\n  - dst: new.test\n    proto: http\nx: 1\n"),
    "tag": ("rules: !!seq []\n", "rules:\n  - dst: new.test\n    proto: http\n"),
    "no value": ("rules:\n  # none\nx: 1\n", "rules:\n  - dst: new.test\n    proto: http\n  # none\nx: 1\n"),
    "no key": ("include: [a.yaml]", "include: [a.yaml]\nrules:\n  - dst: new.test\n    proto: http\n"),
    "no text": ("", "rules:\n  - dst: new.test\n    proto: http\n"),
}


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(("before", "after"), ADDED.values(), ids=ADDED)
def test_a_rule_is_added_in_the_style_of_the_others(before: str, after: str) -> None:
    """A new rule comes last, in the style and indentation of the others."""
    assert spliced(before, Edit(added=[NEW]), "f") == after


REMOVED = {
    "the only one": ("rules: # r\n  - dst: a.test\n# z\n", "rules: [] # r\n# z\n"),
    "flow": ("rules: [{dst: a.test}, {dst: b.test}]", "rules: [{dst: b.test}]"),
    "the only one in flow": ("rules: [{dst: a.test}, ]", "rules: []"),
}


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(("before", "after"), REMOVED.values(), ids=REMOVED)
def test_the_first_rule_is_removed(before: str, after: str) -> None:
    """A removed rule takes its comments along; those before and after it stay."""
    assert spliced(before, Edit(removed=frozenset({0})), "f") == after


CHANGED = {
    "block": (
        "rules:\n  - dst: a.test # a\n    until: 2026-01-01T00:00:00Z # u\n  - dst: b.test\n",
        "rules:\n  - dst: a.test # a\n    until: 2027-01-01T00:00:00Z # u\n    note: n o\n  - dst: b.test\n",
    ),
    "flow": (
        "rules: [{dst: a.test, until: 2026-01-01T00:00:00Z}, {dst: b.test}]",
        "rules: [{dst: a.test, until: 2027-01-01T00:00:00Z, note: n o}, {dst: b.test}]",
    ),
}


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(("before", "after"), CHANGED.values(), ids=CHANGED)
def test_fields_of_a_rule_are_changed(before: str, after: str) -> None:
    """Values are replaced in place, and new fields come last."""
    assert spliced(before, Edit(changed={0: {"until": TIME, "note": "n o"}}), "f") == after


ODD = {
    "JSON": '{"rules": [{"dst": "a.test"}]}',
    "no rules in braces": "{}",
    "an end of the document": "x: 1\n...\n",
    "a dash on a line of its own": "rules:\n  -\n    dst: a.test\n",
    "a list in brackets on several lines": "rules: [\n  {dst: a.test},\n  {dst: b.test},\n]\n",
    "a list that ends in a rule's line": "rules: [\n  {dst: a.test}]\n",
    "a rule in several lines of flow": "rules: [\n  {dst: a.test, # a\n   note: x},\n]\n",
    "a note with its line breaks": "rules:\n- dst: a.test\n  note: |+\n    x\n\n\n",
}
EDITS = (Edit(added=[NEW]), Edit(changed={0: {"note": "n"}}), Edit(removed=frozenset({0})))


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_an_odd_form_is_edited_as_meant_or_is_an_error(text: str) -> None:
    """For each odd form, some edits fail with an error that names the file and an editable form; others work."""
    values = parse(text, "")[0]
    count = len(values.get("rules", []))
    refused = []
    for edit in EDITS if count else EDITS[:1]:
        try:
            after = parse(spliced(text, edit, "f.yaml"), "")[0]["rules"]
        except SettingsError as error:
            refused.append((error.code, error.message, error.hint))
        else:
            assert len(after) == count + len(edit.added) - len(edit.removed)
    assert refused
    for code, message, hint in refused:
        assert code == "rules-not-editable"
        assert message.startswith("The form of f.yaml is one")
        assert "`- {dst: …}`" in hint


@given(st.text(max_size=12))
def test_any_note_is_read_as_it_was_written(note: str) -> None:
    """Quotes, YAML keywords and characters that YAML forbids are escaped so that notes are read back."""
    for text in ("rules:\n- dst: a.test\n", "rules: [{dst: a.test}]"):
        after = spliced(text, Edit(added=[{"dst": "b.test", "note": note}]), "f")
        assert parse(after, "")[0]["rules"][1]["note"] == note


@dataclass(frozen=True)
class Page:
    """A generated file as pieces, each with its rule's position or None."""

    pieces: tuple[tuple[str, int | None], ...]

    @property
    def text(self) -> str:
        return "".join(piece for piece, _ in self.pieces)

    @property
    def count(self) -> int:
        return len({owner for _, owner in self.pieces} - {None})

    def without(self, removed: frozenset[int]) -> str:
        """Return the file without the lines of some rules."""
        return "".join(piece for piece, owner in self.pieces if owner not in removed)


COMMENTS = st.sampled_from(["", "# c", "# {dst: x.test},", "#\t- dst: x.test", "# é 😀 ]"])
BETWEEN = st.lists(st.sampled_from(["", "# about", "  # deeper", "#- dst: x.test"]), max_size=2)
BREAKS = st.sampled_from(["\n", "\r\n"])


@st.composite
def pages(draw: Callable[..., str]) -> Page:
    """Return generated files with rules as a list with dashes."""
    newline, indent = draw(BREAKS), " " * int(draw(st.integers(1, 4)))
    pieces: list[tuple[str, int | None]] = [(f"# top{newline}project: p{newline}", None)]
    pieces.append((f"rules:{newline}", None))
    for position in range(int(draw(st.integers(1, 4)))):
        extra = draw(st.lists(st.sampled_from(EXTRA), unique=True, max_size=3))
        fields = draw(st.permutations([f"dst: n{position}.test", *extra]))
        comment = draw(COMMENTS)
        pieces += [(f"{indent}{line}{newline}" if line else newline, None) for line in draw(BETWEEN)]
        if draw(st.booleans()):
            lines = [f"{indent}- {{{', '.join(fields)}}} {comment}{newline}"]
        else:
            lines = [f"{indent}- {fields[0]} {comment}{newline}"]
            for each in fields[1:]:
                lines += [f"{indent}{line}{newline}" for line in draw(BETWEEN) if line]
                lines += [f"{indent}  {each} {comment}{newline}"]
        pieces += [(line, position) for line in lines]
    pieces += [(f"{indent}{line}{newline}" if line else newline, None) for line in draw(BETWEEN)]
    pieces.append((f"{newline}drain_timeout: 3s", None))
    return Page(tuple(pieces))


EXTRA = ["proto: http", "port: 8443", 'note: "a # b, {c}"', "note2: 'x'", "until: 2099-01-01T00:00:00Z"]


@given(pages(), st.data())
def test_removing_rules_removes_just_their_lines(page: Page, data: st.DataObject) -> None:
    """All other lines stay byte for byte; a list without rules stays a list."""
    removed = frozenset(data.draw(st.sets(st.integers(0, page.count - 1), min_size=1)))
    after = spliced(page.text, Edit(removed=removed), "f")
    expected = page.without(removed)
    assert after in {expected, expected.replace("rules:", "rules: []", 1)}


@given(pages())
def test_adding_a_rule_adds_just_its_lines(page: Page) -> None:
    """Only the new rule's lines are added, and removing it restores the file."""
    after = spliced(page.text, Edit(added=[NEW]), "f")
    old, new = page.text.splitlines(keepends=True), after.splitlines(keepends=True)
    start = next(place for place, line in enumerate(new) if "new.test" in line)
    size = len(new) - len(old)
    assert [*new[:start], *new[start + size :]] == old
    assert spliced(after, Edit(removed=frozenset({page.count})), "f") == page.text
