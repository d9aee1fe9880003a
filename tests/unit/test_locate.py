"""The engine is located as by the docker CLI: options, variables and contexts."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.engine.locate import DEFAULT_ADDRESS, locate
from clawker_fw.errors import EngineError

FAR = "tcp://192.0.2.1:2376"
OTHER = "tcp://192.0.2.2:2376"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A folder with one context, as the docker CLI writes it, which is not current."""
    write_context(tmp_path, "far", {"docker": {"Host": FAR, "SkipTLSVerify": False}})
    return tmp_path


def write_context(folder: Path, name: str, endpoints: Mapping[str, Any]) -> str:
    """Write a context's files, and return the name of its folders."""
    identity = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / identity / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))
    return identity


ORDER: tuple[tuple[str | None, str | None, dict[str, str], str | None, str, str], ...] = (
    (OTHER, None, {"DOCKER_HOST": FAR, "DOCKER_CONTEXT": "far"}, "far", OTHER, "--host"),
    (None, "far", {"DOCKER_HOST": OTHER}, None, FAR, "docker context far"),
    (None, None, {"DOCKER_HOST": OTHER, "DOCKER_CONTEXT": "far"}, "far", OTHER, "DOCKER_HOST"),
    (None, None, {"DOCKER_CONTEXT": "far"}, None, FAR, "docker context far"),
    (None, None, {}, "far", FAR, "docker context far"),
    (None, "default", {"DOCKER_HOST": OTHER}, "far", OTHER, "DOCKER_HOST"),
    (None, None, {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""}, None, DEFAULT_ADDRESS, "the default"),
)


@pytest.mark.parametrize(("host", "context", "variables", "current", "address", "source"), ORDER)
def test_the_order_is_that_of_the_docker_cli(
    *,
    host: str | None,
    context: str | None,
    variables: dict[str, str],
    current: str | None,
    address: str,
    source: str,
    config: Path,
) -> None:
    """The order is option, context option, `DOCKER_HOST`, `DOCKER_CONTEXT`, current context, default."""
    if current:
        (config / "config.json").write_text(json.dumps({"currentContext": current}))
    place = locate(host, context, {"DOCKER_CONFIG": str(config), **variables})
    assert (place.address, place.source) == (address, source)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://engine:1234/", "tcp://engine:1234"),
        ("tcp://engine", "tcp://engine:2375"),
        ("engine:1234", "tcp://engine:1234"),
        ("tcp://[2001:db8::1]", "tcp://[2001:db8::1]:2375"),
        ("ssh://somebody@engine:22", "ssh://somebody@engine:22"),
        ("ssh://engine/run/user/1000/docker.sock", "ssh://engine/run/user/1000/docker.sock"),
    ],
)
def test_an_address_may_leave_things_out(text: str, address: str, tmp_path: Path) -> None:
    """Partial addresses are completed as by the docker CLI."""
    assert locate(text, None, {"DOCKER_CONFIG": str(tmp_path)}).address == address


@pytest.mark.parametrize(
    "text",
    [
        "fd://",
        "npipe:////./pipe/docker_engine",
        "ssh://",
        "ssh://somebody:secret@engine",
        "tcp://",
        "tcp://engine:1?x=y",
        "tcp://engine:99999",
        "unix://",
    ],
)
def test_what_is_no_address_is_refused(text: str, tmp_path: Path) -> None:
    """The error gives the text, its source, and the form of an address."""
    with pytest.raises(EngineError) as caught:
        locate(None, None, {"DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": text})
    assert caught.value.code == "engine-address"
    assert text in caught.value.message
    assert caught.value.context == ("named by DOCKER_HOST",)


@pytest.mark.parametrize(
    ("variables", "verify"),
    [
        ({"DOCKER_CERT_PATH": "certs"}, None),
        ({"DOCKER_TLS": "1", "DOCKER_CERT_PATH": "certs"}, False),
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "certs"}, True),
        ({"DOCKER_TLS_VERIFY": "1"}, True),
    ],
)
def test_tls_by_variables(
    *, variables: dict[str, str], verify: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DOCKER_TLS_VERIFY` or `DOCKER_TLS` enables TLS; a path alone does not. The default path is the CLI's."""
    monkeypatch.chdir(tmp_path)
    Path("certs").mkdir()
    for folder in (tmp_path, Path("certs")):
        for name in ("ca.pem", "cert.pem", "key.pem"):
            (folder / name).touch()
    place = locate("tcp://engine", None, {"DOCKER_CONFIG": str(tmp_path), **variables})
    if verify is None:
        assert place.tls is None
        assert place.address == "tcp://engine:2375"
        return
    assert place.tls is not None
    folder = Path(variables.get("DOCKER_CERT_PATH", str(tmp_path)))
    assert (place.tls.verify, place.tls.authority) == (verify, folder / "ca.pem")
    assert place.tls.client == (folder / "cert.pem", folder / "key.pem")
    assert place.address == "tcp://engine:2376"


@pytest.mark.parametrize(
    ("files", "skip", "expected"),
    [
        ((), True, (False, None, None)),
        (("ca.pem", "cert.pem"), False, (True, "ca.pem", None)),
        (("ca.pem", "cert.pem", "key.pem"), True, (False, "ca.pem", ("cert.pem", "key.pem"))),
    ],
)
def test_tls_by_context(
    *,
    files: tuple[str, ...],
    skip: bool,
    expected: tuple[bool, str | None, tuple[str, str] | None],
    tmp_path: Path,
) -> None:
    """A context uses its own TLS files and verification; variables do not change them."""
    identity = write_context(tmp_path, "far", {"docker": {"Host": FAR, "SkipTLSVerify": skip}})
    folder = tmp_path / "contexts" / "tls" / identity / "docker"
    for name in files:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    tls = locate(None, "far", {"DOCKER_CONFIG": str(tmp_path), "DOCKER_TLS_VERIFY": "1"}).tls
    verify, authority, client = expected
    assert tls is not None
    assert tls.verify is verify
    assert tls.authority == (folder / authority if authority else None)
    assert tls.client == ((folder / client[0], folder / client[1]) if client else None)


@pytest.mark.parametrize("name", ["near", "\udcff"])
def test_an_unknown_context(name: str, config: Path) -> None:
    """An unknown context is an error, even with a name that is not UTF-8; the default engine is not used."""
    environment = {"DOCKER_CONFIG": str(config)}
    for context, variables in ((name, {}), (None, {"DOCKER_CONTEXT": name})):
        with pytest.raises(EngineError, match="no docker context") as caught:
            locate(None, context, environment | variables)
        assert caught.value.code == "context-unknown"


def test_a_context_for_something_else(config: Path) -> None:
    """A context without a Docker engine is an error."""
    write_context(config, "other", {"kubernetes": {"Host": FAR}})
    with pytest.raises(EngineError) as caught:
        locate(None, "other", {"DOCKER_CONFIG": str(config)})
    assert caught.value.code == "context-unusable"


@pytest.mark.parametrize("content", ["", "[]", "\xff"])
def test_unreadable_is_not_absent(content: str, config: Path) -> None:
    """An unreadable configuration may name another engine, so it is an error unless one is named directly."""
    (config / "config.json").write_bytes(content.encode("latin-1"))
    environment = {"DOCKER_CONFIG": str(config)}
    with pytest.raises(EngineError) as caught:
        locate(None, None, environment)
    assert caught.value.code == "docker-config-unreadable"
    assert locate(OTHER, None, environment).address == OTHER
    assert locate(None, "far", environment).address == FAR
