"""Certificates for telemetry: creation, checks, and which credentials a stack gets."""

import stat
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

from clawker_fw.certificates import x509
from clawker_fw.certificates.credentials import NO_CREDENTIALS, Credentials, Pair, Provision, Running
from clawker_fw.certificates.store import TelemetryStore
from clawker_fw.certificates.x509 import certificate, judge
from clawker_fw.model.probes import CertificateUse
from clawker_fw.model.stacks import Sibling
from clawker_fw.private_files import write_private

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> TelemetryStore:
    """A store that writes, at a fixed time."""
    return at(tmp_path / "here", NOW)


def at(folder: Path, now: float, *, keeps: bool = True, own: Path | None = None) -> TelemetryStore:
    return TelemetryStore(folder, "demo", keeps, lambda: now, own)


def credentials(store: TelemetryStore, running: Running = NO_CREDENTIALS) -> Credentials:
    provided = store.provide(running)
    assert provided.credentials is not None, provided
    return provided.credentials


def live(found: Credentials) -> Running:
    return Running(found, any=True)


def test_what_is_minted(store: TelemetryStore, tmp_path: Path) -> None:
    """The CA, a client certificate per firewall container and a server certificate have their uses and names."""
    found = credentials(store)
    authority = certificate(found.trust)
    assert (authority.use, authority.ends - NOW) == (CertificateUse.AUTHORITY, 3653 * DAY)
    for sibling in Sibling:
        client = certificate(found.of(sibling).certificate)
        assert (client.use, client.names) == (CertificateUse.CLIENT, (f"spiffe://clawker-fw/demo/{sibling}",))
        assert (NOW - client.begins, client.ends - NOW) == (3600, 90 * DAY)
    for host in ("collector.test", "192.0.2.7"):
        trust, pair = store.export(host, tmp_path / "tls")
        assert (trust, certificate(pair.certificate).names) == (found.trust, (host,))
        assert certificate(pair.certificate).use is CertificateUse.SERVER
    assert judge(found).unusable(NOW, 3600) == ""


def test_only_the_user_can_read_what_is_kept(store: TelemetryStore, tmp_path: Path) -> None:
    """Folders have mode 0700, files 0600."""
    store.provide()
    store.export("collector.test", tmp_path / "tls")
    folder = tmp_path / "here"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
    assert {each.name for each in folder.iterdir()} == {
        "lock",
        *(f"{name}.{kind}" for name in ("ca", "envoy", "coredns", "collector") for kind in ("crt", "key")),
    }
    existing = folder / "ca.key"
    existing.chmod(0o644)
    write_private(existing, b"x")
    assert stat.S_IMODE(existing.stat().st_mode) == 0o600


def shown(pair: Pair) -> Running:
    """Return a stack to which the collector has shown this certificate."""
    return Running(collector=certificate(pair.certificate))


LATER = NOW + 250 * DAY
"""Six days after two thirds of the collector certificate's lifetime."""


def test_the_certificate_that_the_collector_shows_is_asked_for_in_time(tmp_path: Path) -> None:
    """Renewal of the collector's certificate, even a foreign one, is due after two thirds of its lifetime."""
    at(tmp_path, NOW).provide()
    _, first = at(tmp_path, NOW).export("collector.test", tmp_path / "tls")
    assert at(tmp_path, NOW + 240 * DAY).provide(shown(first)).due == ()
    (sentence,) = at(tmp_path, LATER, keeps=False).provide(shown(first)).due
    assert "certificate is valid until" in sentence
    assert "certs export collector DIR" in sentence
    _, second = at(tmp_path, LATER).export("collector.test", tmp_path / "tls")
    assert first != second
    assert len(at(tmp_path, LATER).provide(shown(first)).due) == 1
    assert at(tmp_path, LATER).provide(shown(second)).due == ()


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ({"envoy.key": "coredns.key"}, "envoy's certificate or key can't be used: the key belongs to another"),
        ({"envoy.key": "collector.key", "envoy.crt": "collector.crt"}, "envoy's certificate or key can't be used"),
        ({"ca.crt": x509.mint_authority("other", NOW).certificate}, "can't be used"),
        ({"coredns.crt": b"hello"}, "coredns's certificate or key can't be used"),
        ({"ca.crt": b""}, "the CA's certificate can't be read"),
    ],
)
def test_what_cant_be_used(spoilt: dict[str, str | bytes], reason: str, tmp_path: Path) -> None:
    """Each defect of the user's own certificates is given as the reason."""
    at(tmp_path, NOW).provide()
    at(tmp_path, NOW).export("a.test", tmp_path / "tls")
    for name, content in spoilt.items():
        other = content if isinstance(content, bytes) else (tmp_path / content).read_bytes()
        (tmp_path / name).write_bytes(other)
    (tmp_path / "ca.key").unlink()
    provided = at(tmp_path / "state", NOW, own=tmp_path).provide()
    assert reason in provided.reason
    assert provided.credentials is None
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("after", "reason"),
    [(-2 * 3600, "valid only from"), (90 * DAY - 1800, "expire at"), (90 * DAY + 1, "have expired at")],
)
def test_they_must_be_valid_for_another_hour(after: float, reason: str, tmp_path: Path) -> None:
    """The user's own certificates must be valid now and for the next hour."""
    at(tmp_path, NOW).provide()
    (tmp_path / "ca.key").unlink()
    provided = at(tmp_path / "state", NOW + after, own=tmp_path).provide()
    assert provided.credentials is None
    assert reason in provided.reason


def test_an_authority_of_the_users_own_signs(tmp_path: Path) -> None:
    """A `ca.key` in the user's folder signs the certificates, which are stored only in the state folder."""
    own = tmp_path / "own"
    authority = x509.mint_authority("mine", NOW)
    own.mkdir()
    (own / "ca.crt").write_bytes(authority.certificate)
    (own / "ca.key").write_bytes(authority.key)
    found = credentials(at(tmp_path / "state", NOW, own=own))
    assert found.trust == authority.certificate
    assert credentials(at(tmp_path / "state", NOW + 1, own=own)) == found
    assert {each.name for each in own.iterdir()} == {"ca.crt", "ca.key"}
    assert not (tmp_path / "state" / "ca.key").exists()


def test_a_machine_without_the_authority_keeps_what_is_live(store: TelemetryStore, tmp_path: Path) -> None:
    """A machine without the CA creates none, says so, and is ready until the certificates expire."""
    found = credentials(store)
    provided = at(tmp_path / "elsewhere", NOW + 80 * DAY).provide(live(found))
    assert provided.credentials == found
    assert "is on another machine, belongs to another user" in provided.reason
    assert "is kept until it expires" in provided.reason
    assert not (tmp_path / "elsewhere" / "ca.key").exists()
    assert at(tmp_path / "elsewhere", NOW + 90 * DAY - 1).provide(live(found)).credentials == found
    assert at(tmp_path / "elsewhere", NOW + 90 * DAY).provide(live(found)).credentials is None


def test_the_newest_certificates_win(tmp_path: Path) -> None:
    """Of two machines that both create certificates, neither replaces newer ones from the other."""
    older, newer = credentials(at(tmp_path / "a", NOW)), credentials(at(tmp_path / "b", NOW + DAY))
    assert credentials(at(tmp_path / "a", NOW + 2 * DAY), live(newer)) == newer
    assert credentials(at(tmp_path / "b", NOW + 2 * DAY), live(older)) == newer
    rotated = at(tmp_path / "a", NOW + 3 * DAY)
    rotated.rotate(authority=True)
    found = credentials(rotated, live(newer))
    assert found not in (older, newer)
    assert older.trust in found.trust  # so that the former collector certificate is still accepted
    assert judge(replace(found, trust=older.trust)).problem


def test_an_authority_that_can_not_be_read_is_not_replaced(store: TelemetryStore, tmp_path: Path) -> None:
    """An unreadable CA is not replaced: agents would stop trusting the current one, and its key would be lost."""
    store.provide()
    folder = tmp_path / "here"
    key = (folder / "ca.key").read_bytes()
    (folder / "ca.crt").rename(folder / "aside")
    (folder / "ca.crt").mkdir()
    with pytest.raises(IsADirectoryError):
        store.rotate(authority=True)
    assert (folder / "ca.key").read_bytes() == key


def test_no_text_has_a_key(store: TelemetryStore) -> None:
    """Neither `repr` of credentials nor a traceback shows a key."""
    found = credentials(store)
    try:
        judge(Credentials(b"", Pair(b"x", found.envoy.key), found.coredns)).unusable(NOW)
        x509.mint_client(Pair(b"x", found.envoy.key), "demo", Sibling.ENVOY, NOW)
    except ValueError as error:
        text = "".join(traceback.format_exception(error))
    shown = [text, repr(found), repr(Provision(found)), repr(Running(found)), str(found.envoy)]
    keys = [line for each in Sibling for line in found.of(each).key.decode().splitlines() if "-----" not in line]
    assert not [key for key in keys if any(key in each for each in shown)]


def test_a_renewal_that_fails_keeps_what_is_valid(tmp_path: Path) -> None:
    """If the CA's key does not fit, the valid certificates stay in use until they expire."""
    found = credentials(at(tmp_path, NOW))
    (tmp_path / "ca.key").write_bytes(x509.mint_authority("demo", NOW).key)
    later = at(tmp_path, NOW + 70 * DAY).provide()
    assert later.credentials == found
    assert "can't be renewed" in later.reason
    ended = at(tmp_path, NOW + 91 * DAY).provide()
    assert ended.credentials is None
    assert "have expired" in ended.reason
    assert "can't be renewed" in ended.reason
    at(tmp_path, NOW + 91 * DAY).rotate(authority=True)
    assert credentials(at(tmp_path, NOW + 91 * DAY)) != found
