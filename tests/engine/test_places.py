"""Remote engines: over TLS, by variables, and by contexts of the docker CLI."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from devkit.certificates import certify
from devkit.engines import PrivateEngine, install_client, private_engine
from devkit.firewall import Firewall, Outcome

ADDRESS = "tcp://127.0.0.1:2376"


@dataclass(frozen=True)
class Secured:
    """An engine with TLS in its own network. `client` holds the client certificates."""

    engine: PrivateEngine
    client: Path

    def call(self, firewall: Firewall, *arguments: str, **variables: str) -> Outcome:
        """Run a command in the engine's network, where it locates the engine itself."""
        elsewhere = replace(firewall, host="", variables={"DOCKER_CONFIG": str(firewall.folder), **variables})
        return elsewhere.call_raw(self.engine.network_argv(*elsewhere.command(*arguments)))

    def docker(self, config: Path, *arguments: str) -> None:
        install_client()
        environment = {**os.environ, "DOCKER_CONFIG": str(config)}
        subprocess.run(["docker", *arguments], env=environment, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def secured(
    needs_engine: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Secured]:
    """The engine, which requires client certificates from its CA."""
    needs_engine()
    engine, client = certify(tmp_path_factory.mktemp("certificates"))
    files = {f"tls{word}": str(engine / f"{word}.pem") for word in ("cert", "key")}
    settings = {"tlsverify": True, "tlscacert": str(engine / "ca.pem"), **files}
    with private_engine(settings=settings, hosts=[ADDRESS]) as started:
        yield Secured(started, client)


@pytest.fixture
def firewall(tmp_path: Path) -> Firewall:
    made = Firewall("", "clawker", tmp_path)
    made.write("a.test")
    return made


def test_tls_by_variables(secured: Secured, firewall: Firewall) -> None:
    """With `DOCKER_HOST` and related variables, a stack is created, changed and removed over TLS."""
    said = {"DOCKER_HOST": ADDRESS, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(secured.client)}
    secured.call(firewall, "run", **said).expect()
    firewall.write("b.test")
    secured.call(firewall, "reload", **said).expect()
    secured.call(firewall, "drift", **said).expect()
    secured.call(firewall, "down", **said).expect()


def test_tls_by_context(secured: Secured, firewall: Firewall) -> None:
    """A docker context works as an option, as a variable, and as the current context."""
    names = {"ca": "ca", "cert": "cert", "key": "key"}
    files = "".join(f",{option}={secured.client}/{name}.pem" for option, name in names.items())
    secured.docker(firewall.folder, "context", "create", "far", "--docker", f"host={ADDRESS}{files}")
    assert "error[" in secured.call(firewall, "status").expect(4).err
    secured.call(firewall, "status", CLAWKER_FW_CONTEXT="far").expect()
    secured.call(firewall, "status", DOCKER_CONTEXT="far").expect()
    secured.docker(firewall.folder, "context", "use", "far")
    secured.call(firewall, "status").expect()
    secured.call(firewall, "status", DOCKER_HOST="unix:///nowhere").expect(4)


def test_who_is_not_trusted(secured: Secured, firewall: Firewall, tmp_path: Path) -> None:
    """An engine of another CA, and a client without a certificate, are refused; the error lists the files."""
    stranger = certify(tmp_path / "stranger")[1]
    said = {"DOCKER_HOST": ADDRESS, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(stranger)}
    secured.call(firewall, "status", **{**said, "DOCKER_CERT_PATH": str(secured.client)}).expect()
    assert "CERTIFICATE_VERIFY_FAILED" in secured.call(firewall, "status", **said).expect(4).err
    # `requests` alone would prefer its own variable for the CA.
    other = {**said, "REQUESTS_CA_BUNDLE": str(secured.client / "ca.pem")}
    assert "CERTIFICATE_VERIFY_FAILED" in secured.call(firewall, "status", **other).expect(4).err

    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "ca.pem").write_bytes((secured.client / "ca.pem").read_bytes())
    refused = secured.call(firewall, "status", **{**said, "DOCKER_CERT_PATH": str(bare)}).expect(4)
    assert "without cert.pem and key.pem" in refused.err.replace("\n", " ")
    plain = secured.call(firewall, "status", DOCKER_HOST=ADDRESS).expect(4)
    assert "error[engine-unreachable]" in plain.err
