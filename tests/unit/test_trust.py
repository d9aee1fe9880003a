"""CA certificates for agents: files, variables, and which agents have which roots."""

from dataclasses import replace
from typing import Any

import pytest

from clawker_fw.agents.trusted_roots import TARGET, Trust, is_trust, without, writable
from clawker_fw.certificates import authority
from clawker_fw.certificates.credentials import fingerprints
from clawker_fw.model.containers import Mount
from clawker_fw.model.volumes import VolumeView
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.observe import observe
from clawker_fw.reconcile.trust_volume import trust_for
from clawker_fw.stack import labels
from devkit import stacks
from devkit.memory.engine import MemoryEngine

ROOTS = [authority.mint_root("demo", 1_800_000_000.0 + day * 86400).certificate for day in (9, 0)]

OWN = authority.mint_root("company", 1_800_000_000.0).certificate


def given(own: bytes = b"", roots: bytes = b"".join(ROOTS)) -> Trust:
    """Return the certificates that an agent gets."""
    return trust_for("demo", roots, own)


@pytest.mark.parametrize(
    "junk",
    [
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!=\n-----END CERTIFICATE-----\n",
        b"-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n-----END TRUSTED CERTIFICATE-----\n",
        b"# a comment \xff\n",
    ],
)
def test_what_is_no_certificate_keeps_nobody_from_reading_the_rest(junk: bytes) -> None:
    """Invalid entries in a certificate list are skipped."""
    assert given(junk + OWN + junk) == given(OWN)


def volume(trust: Trust, **changes: Any) -> VolumeView:  # noqa: ANN401 - fields of a volume
    """Return a volume as an engine reports it."""
    made = {**labels.ownership_labels("demo"), labels.TRUST: trust.roots}
    return replace(VolumeView(trust.volume, "local", {}, made), **changes)


def test_only_what_we_make_counts() -> None:
    """A volume with another name, form or label does not count."""
    assert is_trust(volume(given()))
    for each in (
        {"name": "other"},
        {"driver": "nfs"},
        {"options": {"o": "bind", "device": "/tmp"}},  # noqa: S108 - never used
        {"labels": labels.ownership_labels("demo")},
        {"labels": {labels.TRUST: given().roots}},
    ):
        assert not is_trust(volume(given(), **each))


def test_only_a_writable_mount_opens_a_way() -> None:
    """A writable mount of the volume is a bypass: its writer decides what others trust."""
    made = volume(given())
    there = {made.name: made, "data": VolumeView("data", "local", {})}
    mounts = [Mount("volume", "/a", made.name, read_only=True), Mount("volume", "/b", "data")]
    assert writable(mounts, there) == ()
    assert writable([*mounts, Mount("volume", "/c", made.name)], there) == ("/c",)


def test_who_has_not_got_the_newest_root(memory: MemoryEngine, up: Blueprint) -> None:
    """Agents lack the newest root if their volume predates the rotation, or if they have none."""
    former, now = given(roots=ROOTS[1]), given()
    for name, trust in (("first", former), ("second", now), ("third", None)):
        spec = stacks.bare_container(name, up, "clawker-net")
        if trust:
            mounts = (Mount("volume", TARGET, trust.volume, read_only=True),)
            made = {**labels.ownership_labels("demo"), labels.TRUST: trust.roots}
            memory.drivers[trust.volume] = VolumeView(trust.volume, "local", {}, made)
            spec = replace(spec, shape=replace(spec.shape, mounts=mounts))
        memory.start(memory.create_container(spec))
    observed = observe(memory, "clawker")
    newest, signing = fingerprints(b"".join(ROOTS))
    assert without(newest, observed) == ("first", "third")
    assert without(signing, observed) == ("third",)
