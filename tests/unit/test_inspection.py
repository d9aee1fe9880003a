"""The CA for inspected connections: division of names, signing, checks, renewal and rotation."""

import stat
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.certificates import authority
from clawker_fw.certificates.authority import ANNOUNCED, INTERMEDIATE_LIFE, MOST_NAMES, Issuer
from clawker_fw.certificates.credentials import Authorities, Pair, Provided
from clawker_fw.certificates.store import InspectionStore
from clawker_fw.certificates.x509 import AUTHORITY_LIFE, mint_authority
from clawker_fw.stack.envoy import signing

NOW = 1_800_000_000.0
DAY = 86400.0
NAMES = ("one.test", "w.test")


def at(folder: Path, now: float = NOW, *, keeps: bool = True) -> InspectionStore:
    return InspectionStore(folder, "demo", keeps, clock=lambda: now)


def live(provided: Provided) -> Authorities:
    return Authorities(provided.trust, provided.intermediates)


def root_of(now: float = NOW, *, keyless: bool = False) -> Issuer:
    pair = authority.mint_root("demo", now)
    return authority.read_root(replace(pair, key=b"") if keyless else pair)


@given(st.sets(st.integers(0, 5000), max_size=2000), st.integers(0, 5000))
def test_one_name_more_changes_one_share(numbers: set[int], further: int) -> None:
    """Every name is in one share of limited size; one more name replaces or divides only one share."""
    names = {f"n{number}.test" for number in numbers}
    before, after = authority.shares(names), authority.shares({*names, f"n{further}.test"})
    assert sorted(name for share in before for name in share) == sorted(names)
    assert all(0 < len(share) <= MOST_NAMES for share in before)
    gone, new = set(before) - set(after), set(after) - set(before)
    assert len(gone) <= 1
    assert {name for share in new for name in share} - {name for share in gone for name in share} == (
        {f"n{further}.test"} - names
    )


def test_a_chain_fits_into_a_handshake() -> None:
    """Java accepts 32,768 bytes of certificates, so an intermediate has room for fewer long names."""
    names = [f"{number:063}.{number:063}.{number:063}.a.test" for number in range(300)]
    for share in authority.shares(names):
        pair = authority.mint_intermediate(root_of().pair, "demo", share, NOW)
        found = x509.load_pem_x509_certificate(pair.certificate)
        assert len(found.public_bytes(Encoding.DER)) < authority.MOST_BYTES + 1024


def test_a_root_can_be_trusted_for_ten_years() -> None:
    """A root allows one level of intermediates and has a unique name."""
    found = x509.load_pem_x509_certificate(root_of().pair.certificate)
    assert found.not_valid_after_utc - found.not_valid_before_utc == AUTHORITY_LIFE + timedelta(hours=1)
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value == x509.BasicConstraints(ca=True, path_length=1)
    assert found.subject != x509.load_pem_x509_certificate(root_of().pair.certificate).subject


def test_an_intermediate_is_for_its_names_alone() -> None:
    """An intermediate is critically constrained to its names, without addresses, and signs only servers."""
    root = root_of()
    found = x509.load_pem_x509_certificate(authority.mint_intermediate(root.pair, "demo", NAMES, NOW).certificate)
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(root.pair.certificate))
    constraints = found.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert [each.value for each in constraints.value.permitted_subtrees or ()] == list(NAMES)
    assert [each.value for each in constraints.value.excluded_subtrees or ()] == [
        IPv4Network("0.0.0.0/0"),
        IPv6Network("::/0"),
    ]
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert found.not_valid_after_utc.timestamp() == NOW + INTERMEDIATE_LIFE.total_seconds()


def test_no_intermediate_outlives_its_root() -> None:
    """An intermediate signed late in its root's life ends with the root."""
    root = root_of()
    late = authority.mint_intermediate(root.pair, "demo", NAMES, root.ends - DAY)
    assert authority.judge(late, [root]).ends == root.ends


def test_anything_else_is_not() -> None:
    """A foreign key, another root, missing constraints and invalid certificates are told apart."""
    root = root_of()
    good = authority.mint_intermediate(root.pair, "demo", NAMES, NOW)
    for pair, roots, reason in (
        (replace(good, key=root.pair.key), [root], "another certificate"),
        (good, [root_of()], "a root that is not trusted"),
        (good, [], "a root that is not trusted"),
        (root.pair, [root], "not a CA for server certificates only"),
        (mint_authority("demo", NOW), [root], "can't be used"),
        (Pair(b"x", good.key), [root], "can't be used"),
        (Pair(good.certificate, b"x"), [root], "can't be used"),
    ):
        with pytest.raises(ValueError, match=reason):
            authority.judge(pair, roots)


def test_a_new_root_signs_when_agents_know_it() -> None:
    """The newest root that was announced long enough signs; otherwise the oldest."""
    old, new = root_of(NOW), root_of(NOW + DAY)
    switch = NOW + DAY + ANNOUNCED.total_seconds()
    assert authority.signing([new, old], NOW + DAY) == old
    assert authority.signing([new, old], switch - 1) == old
    assert authority.signing([old, new], switch) == new
    assert authority.signing([root_of(NOW + DAY, keyless=True), old], switch) == old
    assert authority.signing([], NOW) is None
    assert authority.signing([old], old.ends) is None


def test_a_former_root_is_trusted_while_it_can_be_in_use() -> None:
    """A former root is dropped after the last intermediate it may have signed expires."""
    old, new = root_of(NOW), root_of(NOW + DAY)
    last = NOW + DAY + (ANNOUNCED + INTERMEDIATE_LIFE).total_seconds()
    assert authority.trusted([old, new], last - 1) == [new, old]
    assert authority.trusted([old, new], last) == [new]
    assert authority.trusted([old, new], new.ends) == []


def test_the_signers_file_is_read_again() -> None:
    """The signer's file is read back as written; anything invalid reads as nothing."""
    pairs = [authority.mint_intermediate(root_of().pair, "demo", NAMES, NOW)]
    files = signing.files(["b.test", "a.test"], ["w.test"], pairs)
    assert files[signing.NAMES].content == b'{"names":["a.test","b.test"],"subtrees":["w.test"]}'
    assert files[signing.NAMES].mode == 0o644
    keys = files[signing.INTERMEDIATES]
    assert (keys.mode, keys.owner, keys.secret) == (0o440, (65531, 65531), True)
    assert signing.read_intermediates(keys.content) == pairs
    for content in (b"", b"[]", b'{"intermediates": [{}]}', b'{"intermediates": [{"certificate": 1, "key": 2}]}'):
        assert signing.read_intermediates(content) == []


def test_what_is_live_is_kept_until_it_is_due(tmp_path: Path) -> None:
    """Nothing is renewed before two thirds of its lifetime, and no intermediate key is on this machine."""
    first = at(tmp_path).provide(NAMES)
    assert first.reason == ""
    (root,) = tmp_path.glob("inspection-*.crt")
    assert first.trust == root.read_bytes()
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}
    assert all(first.intermediates[0].key not in each.read_bytes() for each in tmp_path.iterdir())
    assert first.renewed_at is not None
    assert at(tmp_path, first.renewed_at - 1).provide(NAMES, live(first)) == first
    later = at(tmp_path, first.renewed_at).provide(NAMES, live(first))
    assert later.intermediates != first.intermediates
    assert later.trust == first.trust


def test_a_run_asks_several_times(tmp_path: Path) -> None:
    """A run that asks again gets the same new certificates, even from a store that does not write."""
    for keeps in (True, False):
        store = at(tmp_path / str(keeps), keeps=keeps)
        first = store.provide(NAMES)
        assert first.intermediates
        assert store.provide(NAMES) == first
    assert not (tmp_path / "False").exists()


def test_a_machine_without_the_root_uses_what_is_live(tmp_path: Path) -> None:
    """A machine without the root creates none, and says why names may lack an intermediate."""
    first = at(tmp_path / "here").provide(NAMES)
    found = at(tmp_path / "there", NOW + 25 * DAY).provide([*NAMES, "new.test"], live(first))
    assert (found.trust, found.intermediates) == (first.trust, first.intermediates)
    assert "has no key of a valid root" in found.reason
    expired = at(tmp_path / "there", NOW + 30 * DAY).provide(NAMES, live(first))
    assert expired.intermediates == ()


def test_two_machines_never_take_turns(tmp_path: Path) -> None:
    """If two machines created a root, both use the newer one."""
    first = at(tmp_path / "here").provide(NAMES)
    second = at(tmp_path / "there", NOW + DAY).provide(NAMES)
    assert at(tmp_path / "there", NOW + DAY).provide(NAMES, live(first)).trust == second.trust
    kept = at(tmp_path / "here", NOW + DAY).provide(NAMES, live(second))
    assert (kept.trust, kept.intermediates) == (second.trust, second.intermediates)
    assert "on another machine" in kept.reason


def test_a_folder_that_cannot_be_used_is_a_reason(tmp_path: Path) -> None:
    """With an unusable folder, a command continues with the running certificates and gives the reason."""
    first = at(tmp_path / "here").provide(NAMES)
    (tmp_path / "file").write_text("")
    found = at(tmp_path / "file").provide(NAMES, live(first))
    assert (found.trust, found.intermediates) == (first.trust, first.intermediates)
    assert "file" in found.reason
    (key,) = (tmp_path / "here").glob("inspection-*.key")
    key.write_bytes(b"x")
    assert f"{key} is damaged" in at(tmp_path / "here").provide(NAMES).reason


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 700], ids=["empty", "foreign", "zeros"])
@pytest.mark.parametrize("kind", ["crt", "key"])
def test_a_damaged_root_is_replaced_by_nobody_unasked(tmp_path: Path, kind: str, content: bytes) -> None:
    """A run keeps the running root, creates none, and names the damaged file and the repair command."""
    first = at(tmp_path).provide(NAMES)
    (file,) = tmp_path.glob(f"inspection-*.{kind}")
    file.write_bytes(content)
    for stack in (live(first), Authorities(b"", ())):
        found = at(tmp_path, NOW + DAY).provide(NAMES, stack)
        assert (found.trust, found.intermediates) == (stack.trust, stack.intermediates)
        assert found.reason.startswith(f"{file} is damaged")
        assert "certs rotate --roots" in found.reason
    assert len(list(tmp_path.glob("inspection-*.key"))) == 1
    assert file.read_bytes() == content


def test_a_rotation_overlaps(tmp_path: Path) -> None:
    """Agents get the new root first, it signs a week later, and the former root goes once unused."""
    first = at(tmp_path).provide(NAMES)
    at(tmp_path, NOW + DAY).rotate()
    announced = at(tmp_path, NOW + DAY).provide(NAMES, live(first))
    assert announced.intermediates == first.intermediates
    assert announced.trust.endswith(first.trust)
    assert announced.trust.count(b"BEGIN") == 2
    renewed = at(tmp_path, NOW + 21 * DAY).provide(NAMES, live(announced))
    (new,) = renewed.intermediates
    newest, former = (authority.read_root(Pair(each, b"")) for each in certificates(renewed.trust))
    assert authority.judge(new, [newest])
    with pytest.raises(ValueError, match="not trusted"):
        authority.judge(new, [former])
    last = at(tmp_path, NOW + 38 * DAY).provide(NAMES, live(renewed))
    assert last.trust == newest.pair.certificate
    assert len(list(tmp_path.glob("inspection-*.key"))) == 1


def certificates(bundle: bytes) -> list[bytes]:
    end = b"-----END CERTIFICATE-----\n"
    return [each + end for each in bundle.split(end)[:-1]]
