"""Bundles from a registry: what is verified, what is refused, and what stays in force."""

import base64
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.background import in_background
from clawker_fw.engine.registry_login import login_of
from clawker_fw.errors import EngineError, FirewallError, RegistryError, SettingsError
from clawker_fw.settings.bundles import signature
from clawker_fw.settings.bundles.http import Http
from clawker_fw.settings.bundles.keys import public_keys
from clawker_fw.settings.bundles.pulling import pulled
from clawker_fw.settings.bundles.reference import Reference, parse_reference
from clawker_fw.settings.bundles.registry import Login, Repository
from clawker_fw.settings.bundles.signature import PAYLOAD, SIGNATURE, signature_tag, signing_key
from clawker_fw.settings.bundles.store import Bundle, Kept, Store
from clawker_fw.settings.bundles.taking import Asked, Bundles
from clawker_fw.settings.load import load_settings
from clawker_fw.watch.polling import FIRST_SECONDS, BundlePoll
from devkit.bundles import RULES, Answer, Keys, Scripted, keys, opened, pushed, scripted

NAME = "team/rules"


@pytest.fixture
def liar(registry_address: str, signer: Keys) -> Iterator[Scripted]:
    """A registry in this process with a good bundle, which a test makes a bad one."""
    pushed(f"{registry_address}/{NAME}:good", signer.private)
    with scripted() as found:
        found.copy(registry_address, NAME, "good")
        yield found


@dataclass
class Host:
    """A host that takes a bundle. `now` is its clock, in seconds since 1970."""

    folder: Path
    keys: tuple[Path, ...]
    now: float = field(default_factory=time.time)
    checked: list[str] = field(default_factory=list)

    @property
    def bundles(self) -> Bundles:
        """Its bundles."""
        return Bundles(Store(self.folder), opened, lambda _, __, text: self.checked.append(text), lambda: self.now)

    def ask(self, reference: str) -> bool:
        """Ask the registry."""
        return self.bundles.ask(reference, self.keys)

    def kept(self, reference: str) -> Kept:
        """Return what is in force."""
        found = self.bundles.kept(reference, self.keys)
        assert found
        return found


@pytest.fixture
def host(tmp_path: Path, signer: Keys) -> Host:
    """A host that has nothing yet, and trusts the key."""
    return Host(tmp_path / "bundles", (signer.public,))


# --- references -----------------------------------------------------------------------------------------------


def test_references() -> None:
    """A registry, a name, and a tag or a digest. Docker Hub answers at another name than it is called by."""
    digest = f"sha256:{'0' * 64}"
    whole = parse_reference(f"oci://[::1]:5000/a/b_c:v1@{digest}")
    assert (whole, str(whole)) == (
        Reference("[::1]:5000", "a/b_c", "v1", digest),
        f"oci://[::1]:5000/a/b_c:v1@{digest}",
    )
    assert parse_reference("docker.io/team/rules:1").host == "registry-1.docker.io"
    for wrong in (
        "team/rules:1",
        "oci://r.test/rules",
        "oci://r.test/Rules:1",
        "oci://u:p@r.test/x:1",
        "r.test/../x:1",
    ):
        with pytest.raises(ValueError, match="write oci://REGISTRY/NAME:TAG"):
            parse_reference(wrong)


# --- signatures -----------------------------------------------------------------------------------------------

COSIGN = {
    "manifest": (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"appl'
        'ication/vnd.clawker-fw.settings.v1","config":{"mediaType":"application/vnd.oci.empty.v1+json","d'
        'igest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"laye'
        'rs":[{"mediaType":"application/vnd.clawker-fw.settings.v1+yaml","digest":"sha256:23d02971784d11e'
        '2fbe885dc8c54184618bb5878d8df4c60b12fe48b744721c0","size":30}],"annotations":{"org.opencontainer'
        's.image.created":"2026-11-29T07:12:47.766235Z"}}'
    ),
    "signatures": (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType'
        '":"application/vnd.oci.image.config.v1+json","size":233,"digest":"sha256:b8bbaab0f0e12d8b584ef18'
        '36bc8d9ecad7eacc75950d011c6c2863a8346f0df"},"layers":[{"mediaType":"application/vnd.dev.cosign.s'
        'implesigning.v1+json","size":241,"digest":"sha256:ed8a5b058e2cb937bde7a3ae7b05f8962ba234c1b24ceb'
        '1d72b68cb28ca740d2","annotations":{"dev.cosignproject.cosign/signature":"MEUCIFhIWrOi0Awbp2JRlEX'
        'wYrydEoJ6BIwwvJ5a5P10YzolAiEAvjbaG1B+VbxdrJ/MgDMJKXDuS1RPU++HnL5/2A4s1uQ="}}]}'
    ),
    "payload": (
        '{"critical":{"identity":{"docker-reference":"127.0.0.1:5055/team/rules"},"image":{"docker-manife'
        'st-digest":"sha256:d629552f7dc4048a84135cb6d16cd298d930b26ea0cd7691c959108fc8274211"},"type":"co'
        'sign container image signature"},"optional":null}'
    ),
    "key": (
        "-----BEGIN PUBLIC KEY-----\n"
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEDhcBMvBKG2okj0HkBxbOJ9yBRB+l\n"
        "456IS8G4j9bIn2qskORNRMEGi/wCOiwkjjgcs2k2bWQzYL9+jN/EL3X0Dw==\n"
        "-----END PUBLIC KEY-----\n"
    ),
}
"""What cosign 2.6.1 has written: `cosign generate-key-pair`, `clawker-fw bundle push` without a key, and then
`cosign sign --key cosign.key --tlog-upload=false REPOSITORY@DIGEST`, read from the registry."""


def test_what_cosign_has_signed_is_verified(tmp_path: Path) -> None:
    """With its own key file, and not with another one."""
    (tmp_path / "cosign.pub").write_text(COSIGN["key"])
    digest = "sha256:d629552f7dc4048a84135cb6d16cd298d930b26ea0cd7691c959108fc8274211"
    with scripted() as registry:
        registry.has(NAME, "vector", COSIGN["manifest"].encode())
        registry.has(NAME, signature_tag(digest), COSIGN["signatures"].encode())
        registry.blob(NAME, COSIGN["payload"].encode())
        registry.blob(NAME, b"rules: [{dst: a.example.com}]\n")
        reference = parse_reference(f"{registry.address}/{NAME}:vector")
        found = pulled(opened(reference), reference, public_keys([tmp_path / "cosign.pub"]))
        assert (found.bundle.digest, found.text) == (digest, "rules: [{dst: a.example.com}]\n")
        with pytest.raises(SettingsError) as refused:
            pulled(opened(reference), reference, public_keys([keys(tmp_path, "other").public]))
        assert refused.value.code == "bundle-signature-wrong"


def test_a_signature_is_for_one_manifest(registry_address: str, signer: Keys, host: Host) -> None:
    """The signature of another bundle, copied to the tag where this one's belongs, is none."""
    good, other = f"oci://{registry_address}/{NAME}:bound", f"oci://{registry_address}/{NAME}:other"
    signed = pushed(good, signer.private)
    unsigned = pushed(other, None, b"rules: []\n")
    repository = opened(parse_reference(good))
    found = repository.manifest(signature_tag(signed.digest))
    assert found
    repository.put_manifest(signature_tag(unsigned.digest), found.content)
    with pytest.raises(SettingsError) as refused:
        host.ask(other)
    assert refused.value.code == "bundle-signature-wrong"


def test_any_of_several_keys_will_do(registry_address: str, signer: Keys, tmp_path: Path) -> None:
    """Of several files, of several in one file, and of several signatures: so that a key can be replaced."""
    new = keys(tmp_path, "new", ed=True)
    both = tmp_path / "both.pub"
    both.write_bytes(signer.public.read_bytes() + new.public.read_bytes())
    reference = f"oci://{registry_address}/{NAME}:rotated"
    pushed(reference, new.private, created=100)
    for trusted in ((signer.public, new.public), (both,)):
        assert Host(tmp_path / f"{len(trusted)}", trusted).ask(reference)
    host = Host(tmp_path / "kept", (signer.public, new.public))
    host.ask(reference)
    host.keys = (signer.public,)  # whoever takes a key away means what it has signed
    assert host.bundles.kept(reference, host.keys) is None
    with pytest.raises(SettingsError):
        host.bundles.in_force(reference, host.keys)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END", "signing-key-encrypted"),
        ("nothing", "signing-key-invalid"),
    ],
)
def test_private_keys_that_cant_be_used(content: str, code: str, tmp_path: Path) -> None:
    """Cosign's own are encrypted: the hint says to sign with cosign."""
    path = tmp_path / "cosign.key"
    path.write_text(content)
    with pytest.raises(SettingsError) as refused:
        signing_key(path)
    assert refused.value.code == code


# --- what is taken, and what stays ----------------------------------------------------------------------------


def test_one_request_while_nothing_changes(liar: Scripted, host: Host) -> None:
    """Then it is confirmed. A registry that leaves the digest out of the answer is asked for the manifest."""
    reference = f"oci://{liar.address}/{NAME}:good"
    assert host.ask(reference)
    liar.seen.clear()
    host.now += 60
    assert not host.ask(reference)
    assert [(method, path) for method, path, _ in liar.seen] == [("HEAD", f"/v2/{NAME}/manifests/good")]
    assert host.kept(reference).confirmed == host.now
    assert len(host.checked) == 1
    answer = liar.answers[f"/v2/{NAME}/manifests/good"]
    assert isinstance(answer, Answer)
    answer.headers = {"Content-Type": answer.headers["Content-Type"]}
    assert not host.ask(reference)


def test_a_tag_that_was_moved_back_is_refused(registry_address: str, signer: Keys, host: Host) -> None:
    """An older bundle is refused, the same content is not, and a pin is how to go back."""
    reference = f"oci://{registry_address}/{NAME}:moved"
    old = pushed(reference, signer.private, b"rules: [{dst: old.test}]\n", created=1000)
    host.ask(reference)
    pushed(reference, signer.private, b"rules: [{dst: new.test}]\n", created=2000)
    assert host.ask(reference)
    repository = opened(parse_reference(reference))
    manifest = repository.manifest(old.digest)
    assert manifest
    repository.put_manifest("moved", manifest.content)
    with pytest.raises(SettingsError) as refused:
        host.ask(reference)
    kept = host.kept(reference)
    assert (refused.value.code, kept.text) == ("bundle-older", "rules: [{dst: new.test}]\n")
    assert kept.problem
    assert kept.problem.code == "bundle-older"
    pushed(reference, signer.private, b"rules: [{dst: new.test}]\n", created=1500)
    assert not host.ask(reference)  # it says the same
    assert (host.kept(reference).bundle.created, host.kept(reference).problem) == (2000, None)
    pushed(reference, signer.private, b"rules: [{dst: old.test}]\n", created=2500)
    assert host.ask(reference)
    pinned = f"{reference}@{old.digest}"
    assert host.ask(pinned)
    assert host.kept(pinned).text == "rules: [{dst: old.test}]\n"
    assert not Host(host.folder, host.keys).ask(pinned)  # nothing else can take its place, so nobody is asked


def test_one_from_the_future_is_refused(registry_address: str, signer: Keys, host: Host) -> None:
    """Because nothing that is made until then could take its place."""
    reference = f"oci://{registry_address}/{NAME}:future"
    pushed(reference, signer.private, created=host.now + 7200)
    with pytest.raises(SettingsError) as refused:
        host.ask(reference)
    assert refused.value.code == "bundle-from-future"


def manifest_with(liar: Scripted, **changes: object) -> bytes:
    """Return the good manifest with other fields."""
    answer = liar.answers[f"/v2/{NAME}/manifests/good"]
    assert isinstance(answer, Answer)
    return json.dumps({**json.loads(answer.body), **changes}).encode()


def _other_manifest(liar: Scripted) -> None:
    answer = liar.answers[f"/v2/{NAME}/manifests/good"]
    assert isinstance(answer, Answer)
    digest = answer.headers["Docker-Content-Digest"]
    liar.answers[f"/v2/{NAME}/manifests/{digest}"] = Answer(body=manifest_with(liar, annotations={}))


def _blobs(liar: Scripted, change: Callable[[Answer], Answer]) -> None:
    for path, answer in liar.answers.items():
        if "/blobs/" in path and isinstance(answer, Answer):
            liar.answers[path] = change(answer)


def _manifests(liar: Scripted, change: Callable[[Answer], Answer]) -> None:
    for path, answer in liar.answers.items():
        if "/manifests/" in path and isinstance(answer, Answer):
            liar.answers[path] = change(answer)


LIES: dict[str, tuple[Callable[[Scripted], object], str]] = {
    "another manifest than its digest": (_other_manifest, "registry-lies"),
    "another blob than its digest": (
        lambda liar: _blobs(liar, lambda each: replace(each, body=each.body[:-1] + b"!")),
        "registry-lies",
    ),
    "a blob that is cut off": (
        lambda liar: _blobs(liar, lambda each: replace(each, body=each.body[:5], length=len(each.body))),
        "registry-lies",
    ),
    "a blob that never ends": (
        lambda liar: _blobs(liar, lambda each: replace(each, body=each.body + bytes(1 << 20))),
        "bundle-too-large",
    ),
    "a manifest that is too large": (
        lambda liar: _manifests(liar, lambda each: replace(each, body=each.body + b" " * (1 << 20))),
        "bundle-too-large",
    ),
    "octet by octet": (
        lambda liar: _manifests(liar, lambda each: replace(each, pause=0.1)),
        "registry-unreachable",
    ),
    "no such tag": (lambda liar: liar.answers.clear(), "bundle-absent"),
    "an error": (lambda liar: _manifests(liar, lambda _: Answer(500, body=b"\x1b[2J")), "registry-failed"),
    "no access": (lambda liar: _manifests(liar, lambda _: Answer(403)), "registry-denied"),
    "redirects in a circle": (
        lambda liar: _manifests(liar, lambda _: Answer(307, {"Location": f"/v2/{NAME}/manifests/good"})),
        "registry-unreachable",
    ),
    "a redirect to plain HTTP elsewhere": (
        lambda liar: _manifests(liar, lambda _: Answer(307, {"Location": "http://192.0.2.1/"})),
        "registry-unreachable",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_registry_that_lies(lie: str, liar: Scripted, host: Host, signer: Keys) -> None:
    """Nothing of it is used, each thing is told by a code of its own, and the last good one stays in force."""
    reference = f"oci://{liar.address}/{NAME}:good"
    before = Kept(Bundle(reference, "sha256:other", _digest(b"old"), 0.0, _fingerprint(signer)), "old", 1.0)
    with host.bundles.store.exclusive():
        host.bundles.store.write(before)
    change, code = LIES[lie]
    change(liar)
    host_with_patience = replace(
        host.bundles, open=lambda parsed: opened(parsed, seconds=1.0 if lie == "octet by octet" else 5.0)
    )
    with pytest.raises(FirewallError) as refused:
        host_with_patience.ask(reference, host.keys)
    assert (refused.value.code, refused.value.in_one_line.isprintable()) == (code, True)
    kept = host.kept(reference)
    assert (kept.text, kept.confirmed, kept.problem and kept.problem.code) == ("old", 1.0, code)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _fingerprint(signer: Keys) -> str:
    return public_keys([signer.public])[0].fingerprint


@pytest.mark.parametrize("changes", [{"artifactType": "x\x1b[2J"}, {"layers": []}, {"annotations": {}}])
def test_what_is_no_bundle(changes: Mapping[str, object], liar: Scripted, host: Host, signer: Keys) -> None:
    """Signed or not: an image, one without a layer, one without a time."""
    content = manifest_with(liar, **changes)
    digest = _digest(content)
    with scripted() as registry:
        registry.has(NAME, "odd", content)
        registry.has(NAME, digest, content)
        critical = {"image": {"docker-manifest-digest": digest}, "type": "cosign container image signature"}
        payload = json.dumps({"critical": critical}).encode()
        made = base64.b64encode(signature._signed(signing_key(signer.private), payload)).decode()  # noqa: SLF001
        layer = {
            "mediaType": PAYLOAD,
            "digest": _digest(payload),
            "size": len(payload),
            "annotations": {SIGNATURE: made},
        }
        registry.has(NAME, signature_tag(digest), json.dumps({"layers": [layer]}).encode())
        registry.blob(NAME, payload)
        with pytest.raises(SettingsError) as refused:
            host.ask(f"oci://{registry.address}/{NAME}:odd")
    assert (refused.value.code, refused.value.in_one_line.isprintable()) == ("bundle-invalid", True)


def test_credentials_are_for_one_registry(liar: Scripted) -> None:
    """They are sent once it asks for them, also for a token, and never to a host that it redirects to."""
    reference = parse_reference(f"{liar.address}/{NAME}:good")
    basic = "Basic " + base64.b64encode(b"me:open sesame").decode()
    with scripted() as elsewhere:
        elsewhere.answers["/stored"] = Answer(body=RULES)
        path = f"/v2/{NAME}/blobs/{_digest(RULES)}"
        challenge = f'Bearer realm="http://{liar.address}/token",service="s"'
        away = Answer(307, {"Location": f"http://{elsewhere.address}/stored"})
        liar.answers["/token"] = Answer(body=b'{"token":"t0ken"}')
        liar.answers[path] = lambda headers: (
            away
            if headers.get("authorization") == "Bearer t0ken"
            else Answer(401, {"WWW-Authenticate": challenge})
        )
        repository = Repository(reference, lambda _: Login("me", "open sesame"), Http(reference.host, {}))
        assert repository.blob(_digest(RULES), len(RULES), 1000) == RULES
        token = next(each for each in liar.seen if each[1].startswith("/token"))
        assert (token[2]["authorization"], "scope=repository%3Ateam%2Frules%3Apull" in token[1]) == (basic, True)
        assert [headers.get("authorization") for _, _, headers in elsewhere.seen] == [None]
        assert "authorization" not in next(each for each in liar.seen if each[1] == path)[2]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names registry.test and proxy.test are this machine."""
    resolve = socket.getaddrinfo

    def resolved(host: str, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - passed on
        return resolve("127.0.0.1" if host.endswith(".test") else host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@pytest.mark.usefixtures("named")
def test_tls_is_required(tmp_path: Path) -> None:
    """A registry that is not this machine has to prove its name by an authority that the environment can name."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(tmp_path / "key.pem"))
    name = ("-subj", "/CN=registry.test", "-addext", "subjectAltName=DNS:registry.test")
    made = ["openssl", "req", "-x509", *key, *name, "-out", str(tmp_path / "ca.pem")]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    with scripted(context) as registry:
        path, port = registry.blob(NAME, RULES), registry.address.rpartition(":")[2]
        reference = parse_reference(f"registry.test:{port}/{NAME}:1")

        def asked(**environment: str) -> bytes:
            with closing(Repository(reference, lambda _: None, Http(reference.host, environment))) as repository:
                return repository.blob(path.rpartition("/")[2], len(RULES), 1000)

        for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            assert asked(**{variable: str(tmp_path / "ca.pem")}) == RULES
        with pytest.raises(RegistryError, match="its certificate is not valid here"):
            asked()
        registry.answers[path] = Answer(307, {"Location": f"https://127.0.0.1:{port}/"})
        with pytest.raises(RegistryError, match="it redirects to where no registry is"):
            asked(SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    with scripted() as plain, pytest.raises(RegistryError):
        Http(f"registry.test:{plain.address.rpartition(':')[2]}", {}).exchange("GET", "/", {})
    assert plain.seen == []


@pytest.mark.usefixtures("named")
def test_a_proxy_is_used_as_the_environment_says() -> None:
    """With its own credentials, for all but the hosts without one."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        asked = in_background(lambda: proxy.accept()[0].recv(4096).decode().splitlines())
        address = f"http://me:secret@proxy.test:{proxy.getsockname()[1]}"
        environment = {"HTTPS_PROXY": address, "NO_PROXY": "other.test"}
        with pytest.raises(RegistryError):
            Http("registry.test", environment, seconds=1.0).exchange("GET", "/", {"Authorization": "Basic x"})
        line, *headers = asked.result(5)
        assert line.startswith("CONNECT registry.test:443 ")
        assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:secret').decode()}" in headers
        assert not any(each.startswith("Authorization") for each in headers)
        with pytest.raises(RegistryError):
            Http("other.test:1", environment, seconds=1.0).exchange("GET", "/", {})
        proxy.settimeout(0.1)
        with pytest.raises(TimeoutError):
            proxy.accept()


# --- logins ---------------------------------------------------------------------------------------------------


def test_logins_are_those_of_the_docker_cli(tmp_path: Path) -> None:
    """Its config.json, or a credential helper. None is none, and one that can't be used is an error."""
    helper = tmp_path / "docker-credential-mine"
    helper.write_text(
        '#!/bin/sh\nread host\n[ $host = helped.test ] && echo \'{"Username":"h","Secret":"s"}\' && exit\n'
        "echo credentials not found in native keychain; exit 1\n"
    )
    helper.chmod(0o700)
    auth = base64.b64encode(b"u:p:q").decode()
    config = {
        "auths": {"plain.test:5000": {"auth": auth}, "https://index.docker.io/v1/": {"auth": auth}},
        "credHelpers": {"helped.test": "mine", "unknown.test": "mine", "gone.test": "gone", "bad.test": "../mine"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    environment = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    found = {each: login_of(each, environment) for each in ("plain.test:5000", "docker.io", "helped.test")}
    assert found == {"plain.test:5000": ("u", "p:q"), "docker.io": ("u", "p:q"), "helped.test": ("h", "s")}
    assert login_of("unknown.test", environment) is login_of("other.test", environment) is None
    for broken in ("gone.test", "bad.test"):
        with pytest.raises(EngineError) as refused:
            login_of(broken, environment)
        assert refused.value.code == "registry-login-failed"


# --- settings -------------------------------------------------------------------------------------------------

WHOLE = "rules: [{dst: central.test}]\nnever: [.corp.test]\nlimits: {idle: 90s}\npresets: [pip]\n"


@pytest.fixture
def read(tmp_path: Path, signer: Keys) -> Callable[..., object]:
    """Reads a local file, for which bundles have the texts that are given by their names."""

    def read(local: str, **texts: str) -> object:
        path = tmp_path / "clawker-fw.yaml"
        path.write_text(local)
        (tmp_path / "rules.pub").write_bytes(signer.public.read_bytes())

        def resolve(reference: str, files: object) -> Kept:
            assert files == (tmp_path / "rules.pub",)
            text = texts[parse_reference(reference).name]
            return Kept(Bundle(reference, f"sha256:{'1' * 64}", _digest(text.encode()), 0, "k"), text, 0)

        return load_settings(path, {}, resolve=resolve)

    return read


LOCAL = "settings: oci://r.test/whole:1\nbundle_keys: [rules.pub]\n"


def test_settings_from_a_bundle(read: Callable[..., object]) -> None:
    """What is local overrides it, promises of both count, and each rule has its place."""
    loaded = read(
        f"project: shop\n{LOCAL}include: [oci://r.test/part:1]\nnever: [.local.test]\n"
        "limits: {queries_per_second: 7}\n",
        whole=WHOLE,
        part="rules: [{dst: part.test}]\n",
    )
    rules = {str(each.destination): each.place for each in loaded.rules.rules}  # type: ignore[attr-defined]
    assert rules["central.test"] == f"oci://r.test/whole:1@sha256:{'1' * 12}, line 1"
    assert rules["part.test"] == f"oci://r.test/part:1@sha256:{'1' * 12}, line 1"
    limits = loaded.settings.limits  # type: ignore[attr-defined]
    assert (limits.idle, limits.queries_per_second) == (90, 7)
    assert sorted(str(each.rule.destination) for each in loaded.promises) == [".corp.test", ".local.test"]  # type: ignore[attr-defined]
    assert [each.name for each in loaded.files] == ["clawker-fw.yaml", "rules.pub"]  # type: ignore[attr-defined]
    assert [each.reference for each in loaded.bundles] == ["oci://r.test/whole:1", "oci://r.test/part:1"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("local", "whole", "code"),
    [
        (LOCAL, "rules: []\nbundle_keys: [mine.pub]\n", "bundle-oversteps"),
        (LOCAL, "settings: oci://evil.test/x:1\n", "bundle-oversteps"),
        (LOCAL, "rules: []\ninclude: [/etc/passwd]\n", "bundle-oversteps"),
        (LOCAL, "rules: []\ninclude: [oci://evil.test/x:1]\n", "bundle-oversteps"),
        (LOCAL, "rules: []\nproject: other\n", "bundle-oversteps"),
        (LOCAL, "rules: []\nimages: {envoy: bundled}\n", "bundle-oversteps"),
        (LOCAL, "rules: []\notel: {certs_dir: certs}\n", "bundle-oversteps"),
        (LOCAL, "rules: []\ninspection: {ca_file: ca.pem}\n", "bundle-oversteps"),
        (LOCAL, "rules: []\nsecrets: {a: {command: [id]}}\n", "settings-invalid"),
        (LOCAL, "drain_timeout: 5s\n", "settings-invalid"),
        (f"{LOCAL}rules: []\n", WHOLE, "settings-invalid"),
        (f"{LOCAL}presets: [pip]\n", WHOLE, "settings-invalid"),
        (f"{LOCAL}never: [central.test]\n", WHOLE, "promise-broken"),
        ("settings: team.yaml\nbundle_keys: [rules.pub]\n", WHOLE, "settings-invalid"),
        ("settings: oci://r.test/whole:1\n", WHOLE, "bundle-without-key"),
        ("rules: []\nbundle_keys: [rules.pub]\ninclude: [oci://r.test/whole:1]\n", WHOLE, "settings-invalid"),
        ("rules: []\nbundle_keys: [rules.pub]\ninclude: [oci://whole]\n", WHOLE, "settings-invalid"),
    ],
)
def test_what_a_bundle_and_a_local_file_may_say(
    local: str, whole: str, code: str, read: Callable[..., object]
) -> None:
    """A bundle names no file, key, image, command or other bundle, and a file does not contradict its bundle."""
    with pytest.raises(SettingsError) as refused:
        read(local, whole=whole)
    assert refused.value.code == code


def test_a_bundle_that_is_kept_needs_no_library(registry_address: str, signer: Keys, tmp_path: Path) -> None:
    """Nothing that verifies, or asks a registry; asking needs only Python's own client."""
    reference = f"oci://{registry_address}/{NAME}:kept"
    pushed(reference, signer.private)
    file = tmp_path / "clawker-fw.yaml"
    file.write_text(f"settings: {reference}\nbundle_keys: [{signer.public}]\n")
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from clawker_fw.cli import session, registries\nfrom clawker_fw.cli.parameters import Options\n"
        f"chosen = Options(config=Path({str(file)!r}))\n"
        "if 'ask' in sys.argv: registries.ask(chosen)\n"
        "assert session.load(chosen).bundles\n"
        "print(*sorted({each.partition('.')[0] for each in sys.modules} & "
        "{'cryptography', 'requests', 'docker', 'ssl', 'jinja2', 'rich'}))\n"
    )

    def imported(*words: str) -> set[str]:
        argv = [sys.executable, "-c", program, *words]
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
        return set(
            subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout.split()
        )

    assert "cryptography" in imported("ask")
    assert imported("ask") == {"ssl"}
    assert imported() == set()


# --- polling --------------------------------------------------------------------------------------------------


def test_polls_are_spread_and_slow_down() -> None:
    """Every five minutes plus or minus a fifth, more slowly while a registry fails, and never before it wants."""
    told: list[Asked] = []
    answers: list[Asked] = []
    chance = [0.5]
    poll = BundlePoll(300, lambda: answers, told.append, lambda: chance[0], now=0)
    assert poll.due == FIRST_SECONDS / 2
    answers[:] = [Asked("r", taken=True)]
    assert poll.poll(100)
    for drawn, due in ((0.0, 340), (0.5, 400), (1.0, 460)):
        chance[0] = drawn
        poll.poll(100)
        assert poll.due == pytest.approx(due)
    away = RegistryError("registry-unreachable", "away")
    answers[:] = [Asked("r", error=away)]
    chance[0], now, waits = 0.0, 1000.0, []
    for _ in range(4):
        assert not poll.poll(now)
        waits.append(poll.due - now)
        now = poll.due
    assert waits == [600, 1200, 2400, 2400]
    away.retry_after = 9000
    poll.poll(now)
    assert poll.due - now == 9000
    answers[:] = [Asked("r")]
    poll.poll(now)
    chance[0] = 0.5
    poll.poll(now)
    assert poll.due - now == 300
    assert [(each.taken, bool(each.error)) for each in told[-6:]][-2:] == [(False, True), (False, False)]


def test_a_problem_is_told_once_an_hour() -> None:
    """And at once when it is another one, or has passed."""
    told: list[str] = []
    answers = [Asked("r", error=SettingsError("bundle-unsigned", "unsigned"))]
    poll = BundlePoll(
        300, lambda: answers, lambda each: told.append(each.error.code if each.error else ""), lambda: 0.5, 0
    )
    for now in range(0, 7500, 300):
        poll.poll(now)
    assert told == ["bundle-unsigned"] * 3
    answers[:] = [Asked("r", error=SettingsError("bundle-older", "older"))]
    poll.poll(7600)
    answers[:] = [Asked("r")]
    poll.poll(7700)
    poll.poll(7800)
    assert told[3:] == ["bundle-older", ""]


def test_retry_after_reaches_the_poll(liar: Scripted, host: Host) -> None:
    """In seconds, or as a date."""
    path = f"/v2/{NAME}/manifests/good"
    for text, least in (("120", 120), ("Fri, 31 Dec 2100 23:59:59 GMT", 1e9), ("soon", None)):
        liar.answers[path] = Answer(429, {"Retry-After": text})
        with pytest.raises(RegistryError) as refused:
            host.ask(f"oci://{liar.address}/{NAME}:good")
        assert refused.value.retry_after is None if least is None else (refused.value.retry_after or 0) >= least
