"""Bundles with a real registry: pushed, verified, promoted, taken by commands, and what is told of them."""

import json
from base64 import b64encode
from pathlib import Path

import pytest

from clawker_fw.settings.bundles.reference import parse_reference
from devkit.bundles import Keys, keys, opened, pushed
from devkit.registry import PASSWORD, USER, own_registry
from tests.cli.conftest import Command

NAME = "team/rules"


@pytest.fixture
def delegating(settings_file: Path, registry_address: str, signer: Keys, request: pytest.FixtureRequest) -> str:
    """A settings file that takes everything from a bundle of this test's. Return the bundle's reference."""
    name = str(request.node.originalname).replace("_", "-")
    reference = f"oci://{registry_address}/{name}:production"
    settings_file.write_text(f"settings: {reference}\nbundle_keys: [{signer.public}]\n")
    return reference


def test_the_way_of_rules(command: Command, delegating: str, signer: Keys, tmp_path: Path) -> None:
    """Pushed with a signature, verified, promoted byte for byte, taken by the next command, and shown by it."""
    staging = delegating.replace(":production", ":staging")
    rules = tmp_path / "rules.yaml"
    rules.write_text("# ours\nrules: [{dst: a.test}, {dst: b.test}]\n")
    done = command("bundle", "push", str(rules), staging, "--key", str(signer.private), "--format", "json")
    answer = done.valid("bundle")
    assert (done.code, answer["rules"], answer["pinned"]) == (0, 2, f"{staging}@{answer['digest']}")
    missing = command("drift")
    assert (missing.code, "bundle-absent" in missing.err) == (3, True)
    promoted = command("bundle", "promote", staging, delegating, "--format", "json").valid("bundle")
    assert [promoted[each] for each in ("digest", "signed_by")] == [answer["digest"], answer["signed_by"]]
    verified = command("bundle", "verify", delegating, "--key", str(signer.public))
    assert verified.code == 0
    assert verified.out.startswith(f"verified  {delegating}@{answer['digest']}  2 rules, signed by sha256:")
    assert command("bundle", "pull", delegating).out == rules.read_text()
    out = tmp_path / "pulled.yaml"
    assert (
        command("bundle", "pull", delegating, "--output", str(out), "--format", "json").valid("bundle") == promoted
    )
    assert out.read_text() == rules.read_text()
    assert command("run").code == 0
    shown = command("status", "--format", "json").valid("status")
    (used,) = shown["settings"]["bundles"]
    assert [used[each] for each in ("reference", "digest", "problem")] == [delegating, answer["digest"], None]
    assert 0 <= used["age"] < 60
    assert shown["rules"] == 2
    assert command("config", "--format", "json").valid("config")["bundles"][0]["digest"] == answer["digest"]
    assert f"Bundle    {delegating}  {answer['digest'][:19]}" in command("status").out
    assert command("drift").code == 0
    edit = command("rules", "allow", "c.test")
    assert (edit.code, "rules-in-bundle" in edit.err) == (6, True)
    rules.write_text("rules: [{dst: a.test}]\n")
    command("bundle", "push", str(rules), delegating, "--key", str(signer.private))
    changed = command("drift")
    assert (changed.code, "are in force now" in changed.err) == (1, True)
    assert command("reload").code == 0
    assert (
        command("drift", "--format", "json").valid("drift")["settings"]["bundles"][0]["digest"] != answer["digest"]
    )


def test_a_bundle_that_a_variable_names(
    command: Command, delegating: str, signer: Keys, settings_file: Path
) -> None:
    """The text of a variable names keys by absolute paths, and includes no files."""
    pushed(delegating, signer.private, b"rules: [{dst: a.test}]\n")
    settings_file.unlink()
    given = f"settings: {delegating}\nbundle_keys: [{signer.public}]\n"
    assert command("run", CLAWKER_FW_SETTINGS=given).code == 0
    assert command("drift", CLAWKER_FW_SETTINGS=given).code == 0
    for wrong, code in (
        (f"settings: {delegating}\nbundle_keys: [cosign.pub]\n", "key-in-variable"),
        ("include: [team.yaml]\n", "include-in-variable"),
    ):
        refused = command("drift", CLAWKER_FW_SETTINGS=wrong)
        assert (refused.code, code in refused.err) == (3, True)


def test_what_is_refused_is_told_and_changes_nothing(
    command: Command, delegating: str, signer: Keys, registry_folder: Path
) -> None:
    """Unsigned, by another key, not valid here, or moved back: the last good one stays."""
    good = pushed(delegating, signer.private, b"rules: [{dst: a.test}]\n", created=2000)
    assert command("run").code == 0

    def told(code: str) -> None:
        looked = command("drift")
        assert looked.code == 0
        assert f"code={code} " in looked.err
        assert "The last good one stays in force" in looked.err
        problem = command("status", "--format", "json").valid("status")["settings"]["bundles"][0]["problem"]
        assert problem["code"] == code

    pushed(delegating, None, b"rules: []\n", created=3000)
    told("bundle-unsigned")
    pushed(delegating, keys(registry_folder, "other").private, b"rules: []\n", created=4000)
    told("bundle-signature-wrong")
    pushed(delegating, signer.private, b"rules: [{dst: a.test, wrong: 1}]\n", created=5000)
    told("settings-invalid")
    pushed(delegating, signer.private, b"rules: []\nproject: other\n", created=6000)
    told("bundle-oversteps")
    pushed(delegating, signer.private, b"rules: []\n", created=1000)
    told("bundle-older")
    repository = opened(parse_reference(delegating))
    manifest = repository.manifest(good.digest)
    assert manifest
    repository.put_manifest("production", manifest.content)
    assert command("status", "--format", "json").valid("status")["settings"]["bundles"][0]["problem"] is None


def test_a_registry_that_is_away(
    command: Command, settings_file: Path, registry_folder: Path, signer: Keys
) -> None:
    """Nothing changes but a warning with the age. Without a last good one, nothing is done."""
    away = registry_folder / "away"
    away.mkdir()
    with own_registry(away) as address:
        reference = f"oci://{address}/{NAME}:1"
        pushed(reference, signer.private, b"rules: [{dst: a.test}]\n")
        settings_file.write_text(f"settings: {reference}\nbundle_keys: [{signer.public}]\n")
        assert command("run").code == 0
    (kept,) = (settings_file.parent / "state" / "clawker-fw" / "certs" / "clawker" / "bundles").glob("*.json")
    document = json.loads(kept.read_text())
    document["confirmed"] -= 26 * 3600
    kept.write_text(json.dumps(document))
    looked = command("run")
    assert (looked.code, "registry-unreachable" in looked.err, "last confirmed 26 h ago" in looked.err) == (
        0,
        True,
        True,
    )
    assert kept.stat().st_mode & 0o077 == 0
    failed = command("bundle", "verify", reference)
    assert (failed.code, "registry-unreachable" in failed.err) == (4, True)
    kept.unlink()
    unknown = command("run")
    assert (unknown.code, "bundle-unavailable" in unknown.err) == (3, True)
    assert command("down", "--all").code == 0
    assert not kept.parent.exists()


def test_what_is_not_pushed(command: Command, registry_address: str, tmp_path: Path, signer: Keys) -> None:
    """What a host alone may say, secrets, mistakes; and where there is no place for it."""
    rules = tmp_path / "rules.yaml"
    for text, code in (
        ("rules: []\nproject: shop\n", "bundle-oversteps"),
        ("rules: []\ninclude: [x.yaml]\n", "bundle-oversteps"),
        ("rules: []\n# -----BEGIN PRIVATE KEY-----\n", "bundle-with-secret"),
        ("rules: [{dst: 'a b'}]\n", "settings-invalid"),
    ):
        rules.write_text(text)
        refused = command("bundle", "push", str(rules), f"{registry_address}/{NAME}:no")
        assert (refused.code, code in refused.err) == (3, True)
    rules.write_text("rules: []\n")
    for reference in (f"{registry_address}/{NAME}", f"{registry_address}/{NAME}@sha256:{'0' * 64}", "rules"):
        assert command("bundle", "push", str(rules), reference).code == 2
    assert command("bundle", "verify", f"{registry_address}/{NAME}:no", "--key", str(signer.public)).code == 3
    assert command("bundle", "verify", f"{registry_address}/{NAME}:no").code == 3  # no key is known


def test_a_registry_that_wants_a_login(
    command: Command, registry_folder: Path, tmp_path: Path, signer: Keys
) -> None:
    """It is the docker CLI's. Without one, the error says how to log in. Copies go between registries."""
    closed = registry_folder / "closed"
    closed.mkdir()
    rules, docker = tmp_path / "rules.yaml", tmp_path / "docker"
    rules.write_text("rules: [{dst: a.test}]\n")
    docker.mkdir()
    with own_registry(closed, password=True) as address:
        reference = f"oci://{address}/{NAME}:1"
        argv = ("bundle", "push", str(rules), reference, "--key", str(signer.private))
        denied = command(*argv)
        assert (denied.code, "registry-denied" in denied.err, f"docker login {address}" in denied.err) == (
            4,
            True,
            True,
        )
        auth = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (docker / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))
        assert command(*argv).code == 0
        key = ("--key", str(signer.public))
        assert command("bundle", "verify", reference, *key).code == 0
        with own_registry(tmp_path) as another:
            copied = f"oci://{another}/prod/rules:live"
            assert command("bundle", "promote", reference, copied, *key).code == 0
            assert command("bundle", "verify", copied, *key).code == 0
