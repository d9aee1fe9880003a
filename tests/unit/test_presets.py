"""The presets of this release, and how settings name them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from clawker_fw.errors import ExitCode, RefusedError, SettingsError
from clawker_fw.rules import suffixes
from clawker_fw.rules.rule import Rule, RuleAction
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.edit import edits, rules_file
from clawker_fw.settings.edit.edits import Addition, EditOutcome, Removal
from clawker_fw.settings.preset import Preset, Proof, names, preset
from clawker_fw.settings.validation import load_settings
from devkit.clients.image import REGISTRIES

PRESETS = tuple(map(preset, names()))
RULES = tuple((each, rule) for each in PRESETS for rule in each.rules)

PUBLISHED: Mapping[str, Mapping[int, str]] = {
    "apt-debian": {1: "b79f98f1709c"},
    "apt-ubuntu": {1: "bf8d17b97756"},
    "apt-ubuntu-ports": {1: "d7698fc3c7d8"},
    "cargo": {1: "6330855f15e5"},
    "claude-code": {1: "7c060ff114f2"},
    "github": {1: "beb696e020a6"},
    "go": {1: "3dfc3ff4bf72"},
    "maven": {1: "21bf5defcb5c"},
    "npm": {1: "04d77e42fa4a"},
    "pip": {1: "2adc408d0f04"},
}
"""The digest of each version's rules. A published version never changes."""

_NAMES = """
amazonaws.com azureedge.net backblazeb2.com blob.core.windows.net cloudfront.net core.windows.net
digitaloceanspaces.com fastly.net firebasestorage.app github.io githubusercontent.com gitlab.io googleapis.com
googleusercontent.com herokuapp.com linodeobjects.com netlify.app ngrok.io pages.dev r2.cloudflarestorage.com
r2.dev supabase.co vercel.app wasabisys.com web.app workers.dev launchpadcontent.net jsdelivr.net unpkg.com
claudeusercontent.com
"""
ANYBODYS = frozenset(_NAMES.split())
"""Domains at or below which anyone can store something, in addition to the public suffix list."""


def above(name: str) -> list[str]:
    """Return a name and all its parent names."""
    labels = name.split(".")
    return [".".join(labels[start:]) for start in range(len(labels))]


@pytest.mark.parametrize(("of", "rule"), RULES, ids=[str(rule) for _, rule in RULES])
def test_a_rule_of_a_preset(of: Preset, rule: Rule) -> None:
    """A preset's rule allows one name, for a stated reason, and no name where anyone can store content."""
    assert rule.action is RuleAction.ALLOW
    assert rule.note
    assert rule.until is None
    assert not rule.allow_private
    assert not rule.host
    assert not rule.destination.subtree or "because" in rule.note
    assert not suffixes.is_shared(rule.destination.name)
    assert not [each for each in above(rule.destination.name) if each in ANYBODYS]
    registries = [each for each in above(rule.destination.name)[1:] if suffixes.is_registry(each)]
    shared = [each for each in above(rule.destination.name)[1:] if suffixes.is_shared(each)]
    assert shared == registries  # anyone can own a name below a private suffix
    assert of.proof is Proof.CITED or rule.destination.name in REGISTRIES


@pytest.mark.parametrize("each", PRESETS, ids=lambda each: each.name)
def test_a_preset(each: Preset) -> None:
    """A preset states its purpose and its sources. Changed rules need another version."""
    assert each.purpose
    assert all(page.startswith("https://") for page in each.pages)
    assert bool(each.proven_by) is (each.proof is Proof.TESTED)
    assert len({rule.destination for rule in each.rules}) == len(each.rules)
    digest = hashlib.sha256("\n".join(each.lines).encode()).hexdigest()[:12]
    assert PUBLISHED[each.name].get(each.version) == digest
    assert each.version == max(PUBLISHED[each.name])


def write(folder: Path, text: str) -> Path:
    path = folder / "clawker-fw.yaml"
    path.write_text(text)
    return path


def listed(path: Path, environment: Mapping[str, str] | None = None) -> list[tuple[str, str, str]]:
    """Return the rules of a settings file, with their sources and presets."""
    loaded = load_settings(path, environment or {})
    place = f"{path}, "
    return [(str(each), each.place.removeprefix(place), each.preset) for each in loaded.rules.rules]


def test_settings_name_presets(tmp_path: Path) -> None:
    """`rules` may be left out. A rule that is also written explicitly counts as written."""
    path = write(tmp_path, "presets:\n- npm\n- pip\n- pip\n")
    assert listed(path) == [
        ("https files.pythonhosted.org:443", "line 3, preset pip", "pip"),
        ("https pypi.org:443", "line 3, preset pip", "pip"),
        ("https registry.npmjs.org:443", "line 2, preset npm", "npm"),
    ]
    path = write(tmp_path, "presets: [npm]\nrules:\n- {dst: registry.npmjs.org, note: mine}\n- dst: a.test\n")
    assert listed(path) == [("https a.test:443", "line 4", ""), ("https registry.npmjs.org:443", "line 3", "")]
    path = write(tmp_path, "presets: [npm]\nrules: []\n")
    assert listed(path, {"CLAWKER_FW_PRESETS": "[maven]"}) == [
        ("https repo.maven.apache.org:443", "CLAWKER_FW_PRESETS, preset maven", "maven")
    ]


WRONG = (
    ("[pipp]", "there is no preset 'pipp'; did you mean `pip`?"),
    ("pip", "`presets` must be a list"),
)


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text for text, _ in WRONG])
def test_presets_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    """An invalid preset is one clear error with its place."""
    path = write(tmp_path, f"rules: []\npresets: {text}\n")
    with pytest.raises(SettingsError) as raised:
        load_settings(path, {})
    assert said in f"{raised.value.message} {raised.value.hint}"
    assert "line 2" in raised.value.message
    assert raised.value.exit_code is ExitCode.SETTINGS


def test_a_rule_of_the_settings_replaces_that_of_a_preset(tmp_path: Path) -> None:
    """The settings' rule wins, although two contradictory rules within the settings would be an error."""
    path = write(tmp_path, "presets: [github]\nrules:\n- {dst: github.com, git: {acme/widgets: read}}\n")
    assert [preset for _, _, preset in listed(path)] == ["github", "github", ""]


def rule(dst: str, **fields: object) -> Addition:
    made = RuleEntry.model_validate({"dst": dst, **fields}).rule("the command line")
    return Addition(made, chosen=frozenset(fields))


def test_edits_beside_presets(tmp_path: Path) -> None:
    """A rule of a preset needs no adding, and can only be changed in `presets`."""
    path = write(tmp_path, "presets: [pip]\n")
    added = [rule("pypi.org"), rule("a.test"), rule("files.pythonhosted.org", action="deny")]
    done = rules_file.edit(path, {}, lambda there: edits.add(there, added, 0.0), write=True)
    assert [each.outcome for each in done.results] == [EditOutcome.UNCHANGED, EditOutcome.ADDED, EditOutcome.ADDED]
    assert done.results[0].place == f"{path}, line 1, preset pip"
    assert [str(each) for each in done.after.rules.rules] == [
        *("https a.test:443", "deny any files.pythonhosted.org", "https files.pythonhosted.org:443"),
        "https pypi.org:443",
    ]
    text = path.read_text()
    removal = Removal(added[0].rule.destination)
    for decide in (
        lambda there: edits.remove(there, [removal], 0.0),
        lambda there: edits.add(there, [rule("pypi.org", allow_private=True)], 0.0),
    ):
        with pytest.raises(RefusedError) as raised:
            rules_file.edit(path, {}, decide, write=True)
        assert raised.value.code == "rule-of-preset"
        assert "A rule of your own for pypi.org replaces it" in raised.value.hint
    assert path.read_text() == text
