"""Certificates on demand: the real Envoy requests them from the real signer, and Python's TLS verifies them."""

import itertools
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from clawker_fw.certificates.authority import mint_intermediate
from clawker_fw.certificates.credentials import Pair
from clawker_fw.certificates.x509 import mint_server
from clawker_fw.stack.envoy import signing
from clawker_fw.stack.release import Release
from devkit.envoy import program
from devkit.inspecting import Echoing, Signer, answers, trusting
from devkit.waiting import until

FRESH = itertools.count()
NAMES, SUBTREES = ("one.test",), ("w.test",)
COVERED = (*NAMES, *SUBTREES)
AT_ONCE = 3
"""Seconds: a handshake waiting for an answer takes four, otherwise some milliseconds."""


def fresh() -> str:
    """Return an inspected name that was never requested."""
    return f"n{next(FRESH)}.w.test"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    started = Signer(tmp_path_factory.mktemp("signer"))
    started.give(NAMES, SUBTREES, COVERED)
    started.start()
    yield started
    started.end()


@pytest.fixture(scope="module")
def envoy(signer: Signer, tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Echoing]:
    """An Envoy that gets its certificates from the signer."""
    with Echoing(tmp_path_factory.mktemp("envoy"), program(release), signer) as started:
        yield started


@pytest.fixture(autouse=True)
def at_work(signer: Signer, envoy: Echoing) -> None:
    """Give the signer its initial files, and wait until it has read them."""
    signer.inspect(NAMES, SUBTREES)
    until(lambda: envoy.serves(fresh()) and envoy.serves("one.test"))


def test_what_envoy_loads_is_what_we_write(envoy: Echoing) -> None:
    """The chain is in canonical form, so that its digest can be compared."""
    loaded = envoy.loaded()
    assert {key: loaded[key] for key in signing.chain()} == signing.chain()


def test_the_first_handshake_gets_a_certificate(envoy: Echoing) -> None:
    """The certificate is for one name, for a week, with a chain to the root. The next handshake gets the same."""
    name = fresh()
    first = certificate_of(envoy, name)
    (alternative,) = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.value == name
    assert 7 < (first.not_valid_after_utc - first.not_valid_before_utc).total_seconds() / 86400 < 7.1
    assert certificate_of(envoy, name) == first
    with envoy.connect(name) as connection:
        assert answers(connection)


def certificate_of(envoy: Echoing, name: str) -> x509.Certificate:
    """Return the certificate that a client gets and verifies."""
    with envoy.connect(name) as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


@pytest.mark.parametrize("name", ["two.test", "x.one.test", "w.test.example", "secret.test", None])
def test_a_name_that_no_rule_inspects_is_refused_at_once(envoy: Echoing, name: str | None) -> None:
    """The handshake ends at once, also without a name, and each time."""
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(ssl.SSLError):
            envoy.connect(name)
        assert time.monotonic() - began < AT_ONCE


def test_any_spelling_works_and_none_stays(envoy: Echoing, signer: Signer) -> None:
    """Each spelling is another secret for Envoy, which keeps at most a thousand; every one was served."""
    letters = zip("abcdefghijk", "ABCDEFGHIJK", strict=True)
    spellings = ["".join(each) + ".w.TEST" for each in itertools.product(*letters)]
    for spelling in spellings[:1200]:
        with envoy.connect(spelling):
            pass
    until(lambda: signer.status()["held"] == 1000)
    until(lambda: envoy.stats("on_demand_secret.cert_active").popitem()[1] <= 1000)
    assert envoy.serves(spellings[0])  # Envoy had dropped it
    assert envoy.serves("ABCDEFGHIJK.W.TEST")


def test_names_live_through_a_crash(envoy: Echoing, signer: Signer) -> None:
    """Existing certificates work without the signer; after its restart, a waiting new name is served.

    Envoy gives up after four seconds, too short for a start on a busy machine, so the client tries again.
    """
    known = [fresh() for _ in range(20)]
    assert all(envoy.serves(name) for name in known)

    def crash() -> bool:
        signer.kill()
        assert all(envoy.serves(name) for name in known)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(envoy.serves, fresh())
            time.sleep(0.1)  # as long as the supervisor waits
            signer.start()
            return waiting.result()

    until(crash, 60)
    until(lambda: envoy.serves(fresh()))
    assert all(envoy.serves(name) for name in known)
    until(lambda: signer.status()["held"] >= len(known))  # all were requested again


def test_a_removed_name_is_taken_back(envoy: Echoing, signer: Signer) -> None:
    """New connections to a removed name are refused, open ones go on, and the name can come back."""
    with envoy.connect("one.test") as connection:
        signer.inspect((), SUBTREES)
        until(lambda: not envoy.serves("one.test"))
        assert envoy.serves(fresh())
        assert answers(connection)
    signer.inspect(NAMES, SUBTREES)
    until(lambda: envoy.serves("one.test"))


def test_new_intermediates_sign_everything_anew(envoy: Echoing, signer: Signer) -> None:
    """Each name soon has a new certificate, no connection fails, and open ones go on."""
    names = [fresh() for _ in range(5)]
    before = {name: certificate_of(envoy, name) for name in names}
    with envoy.connect(names[0]) as connection:
        signer.give(NAMES, SUBTREES, COVERED)

        def are_other() -> bool:
            after = {name: certificate_of(envoy, name) for name in names}
            return all(after[name].issuer != before[name].issuer for name in names)

        until(are_other)
        assert answers(connection)


def test_a_clock_that_is_behind_is_no_problem(envoy: Echoing, signer: Signer) -> None:
    """An agent's certificates were valid half an hour ago, but not two hours ago."""
    shown = {"leaf": certificate_of(envoy, fresh()).public_bytes(Encoding.PEM)}
    shown |= {"root": signer.trust, "between": b"".join(each.certificate for each in signer.intermediates)}
    for name, content in shown.items():
        (signer.folder / name).write_bytes(content)
    chain = ("-CAfile", signer.folder / "root", "-untrusted", signer.folder / "between", signer.folder / "leaf")
    valid = {
        minutes: not subprocess.run(
            ["openssl", "verify", "-attime", str(round(time.time() - 60 * minutes)), *chain],
            capture_output=True,
            check=False,
        ).returncode
        for minutes in (0, 30, 120)
    }
    assert valid == {0: True, 30: True, 120: False}


def test_no_name_is_signed_outside_the_constraints(envoy: Echoing, signer: Signer) -> None:
    """The signer refuses names outside the constraints, and clients refuse certificates forged with its key."""
    signer.inspect(NAMES, (*SUBTREES, "bank.test"))
    until(lambda: not envoy.serves("www.bank.test") and "no intermediate" in signer.status()["failure"])
    for host, accepted in (("a.w.test", True), ("one.test", True), ("www.bank.test", False), ("127.0.0.1", False)):
        made = mint_server(signer.intermediates[0], host, time.time())
        chain = Pair(made.certificate + signer.intermediates[0].certificate, made.key)
        assert is_accepted(chain, host, signer) == accepted, host
    (root,) = (signer.folder / "store").glob("inspection-*.crt")
    pair = Pair(root.read_bytes(), root.with_suffix(".key").read_bytes())
    other = mint_intermediate(pair, "demo", ["bank.test"], time.time())
    made = mint_server(other, "www.bank.test", time.time())
    assert is_accepted(Pair(made.certificate + other.certificate, made.key), "www.bank.test", signer)


def is_accepted(pair: Pair, host: str, signer: Signer) -> bool:
    """Whether a client that trusts the root accepts a certificate for a host."""
    files = {"chain": pair.certificate, "key": pair.key}
    for name, content in files.items():
        (signer.folder / name).write_bytes(content)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(signer.folder / "chain", signer.folder / "key")
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        trusting(signer.trust).wrap_bio(here, there, server_hostname=host),
        server.wrap_bio(there, here, server_side=True),
    ]
    for end in ends * 3:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            return False
    return True


def test_a_certificate_that_envoy_rejects_is_no_end(envoy: Echoing, signer: Signer) -> None:
    """The handshake ends at once, and the name is served when the signer has valid certificates."""
    good = signer.intermediates
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    bad = [replace(each, certificate=each.certificate + broken) for each in good]
    name, before = fresh(), signer.status()["intermediates"]["digest"]
    signer.put(signing.files(NAMES, SUBTREES, bad))
    until(lambda: signer.status()["intermediates"]["digest"] != before)
    began = time.monotonic()
    assert not envoy.serves(name)
    assert time.monotonic() - began < AT_ONCE
    assert signer.status()["rejected"]
    signer.put(signing.files(NAMES, SUBTREES, good))
    until(lambda: envoy.serves(name))
