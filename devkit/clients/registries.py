"""What stands in for the registries that presets are for: a host with the real name of each, for the web server.

Each kind of registry has two packages, `greeting` and `words`, and the first one needs the second. A job is what a
real client does with them: it has both at the end, and then prints `hello`.
"""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devkit.clients.image import REGISTRIES
from hatch_build import toolchain

HELLO = "hello"
_GREETING, _WORDS = "greeting", "words"
_CHECKSUMS = "sum.golang.org"

_SERVER = f"""
server {{
  listen 80;
  listen 443 ssl;
  http2 on;
  server_name {" ".join(REGISTRIES)};
  ssl_certificate /srv/tls/cert.pem;
  ssl_certificate_key /srv/tls/key.pem;
  root /srv/more/$host;
  index index.html;
  try_files $uri $uri.json $uri/ =404;
}}
"""


@dataclass(frozen=True)
class Job:
    """What a client does: a script, and the options of `docker run` that it needs."""

    script: str
    options: str = ""


@dataclass(frozen=True)
class Registries:
    """A folder with all hosts and the configuration of the server for them, and the job of each preset."""

    folder: Path
    jobs: Mapping[str, Job]


def write(folder: Path) -> Registries:
    (folder / "registries.conf").write_text(_SERVER)
    return Registries(folder, {name: make(folder) for name, make in _KINDS.items()})


def _put(path: Path, content: bytes | str) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    octets = content.encode() if isinstance(content, str) else content
    path.write_bytes(octets)
    return octets


def _tar(files: Mapping[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(made.getvalue(), mtime=0)


def _zip(files: Mapping[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- Python ---------------------------------------------------------------------------------------------------


def _pip(folder: Path) -> Job:
    for name, code, needs in (
        (_GREETING, "import words\n", f"Requires-Dist: {_WORDS}\n"),
        (_WORDS, f"print('{HELLO}')\n", ""),
    ):
        file, info = f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
        wheel = {
            f"{name}.py": code,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{each},,\n" for each in (*wheel, f"{info}/RECORD"))
        made = _put(
            folder / "files.pythonhosted.org" / "packages" / file, _zip({**wheel, f"{info}/RECORD": record})
        )
        url = f"https://files.pythonhosted.org/packages/{file}#sha256={_sha256(made)}"
        _put(folder / "pypi.org" / "simple" / name / "index.html", f'<a href="{url}">{file}</a>\n')
    return Job("PIP_RETRIES=0 pip install -q --target /tmp/p greeting; cd /tmp/p; python3 -c 'import greeting'")


# --- JavaScript -----------------------------------------------------------------------------------------------


def _npm(folder: Path) -> Job:
    host = folder / "registry.npmjs.org"
    for name, code, needs in (
        (_GREETING, "require('words')", {_WORDS: "^1.0.0"}),
        (_WORDS, f"console.log('{HELLO}')", {}),
    ):
        described = {"name": name, "version": "1.0.0", "main": "index.js", "dependencies": needs}
        files = {"package/package.json": json.dumps(described), "package/index.js": code}
        made = _put(host / name / "-" / f"{name}-1.0.0.tgz", _tar(files))
        integrity = base64.b64encode(hashlib.sha512(made).digest()).decode()
        place = {
            "tarball": f"https://registry.npmjs.org/{name}/-/{name}-1.0.0.tgz",
            "integrity": f"sha512-{integrity}",
        }
        versions = {"1.0.0": {**described, "dist": place}}
        _put(
            host / f"{name}.json",
            json.dumps({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": versions}),
        )
    return Job(
        "cd /tmp; NPM_CONFIG_FETCH_RETRIES=0 npm install greeting >/dev/null; node -e 'require(\"greeting\")'"
    )


# --- Rust -----------------------------------------------------------------------------------------------------


def _cargo(folder: Path) -> Job:
    index, crates = folder / "index.crates.io", folder / "static.crates.io" / "crates"
    _put(index / "config.json", json.dumps({"dl": "https://static.crates.io/crates", "api": "https://crates.io"}))
    for name, code, needs in ((_GREETING, "", [_WORDS]), (_WORDS, f"// {HELLO}\n", [])):
        manifest = f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\n'
        manifest += "".join(f'{each} = "1"\n' for each in needs)
        crate = _tar({f"{name}-1.0.0/Cargo.toml": manifest, f"{name}-1.0.0/src/lib.rs": code})
        _put(crates / name / "1.0.0" / "download", crate)
        plain = {"features": [], "optional": False, "default_features": True, "target": None, "kind": "normal"}
        entry = {
            "name": name,
            "vers": "1.0.0",
            "deps": [{"name": each, "req": "^1", **plain} for each in needs],
            "cksum": _sha256(crate),
            "features": {},
            "yanked": False,
        }
        _put(index / name[:2] / name[2:4] / name, json.dumps(entry) + "\n")
    return Job("""mkdir -p /tmp/w/src; cd /tmp/w; touch src/lib.rs
printf '[package]\\nname = "w"\\nversion = "0.1.0"\\nedition = "2021"\\n' >Cargo.toml
printf '[dependencies]\\ngreeting = "1"\\n' >>Cargo.toml
CARGO_NET_RETRY=0 cargo vendor -q >/dev/null
test -e vendor/greeting/src/lib.rs; cut -c4- vendor/words/src/lib.rs""")


# --- Go -------------------------------------------------------------------------------------------------------


def _go(folder: Path) -> Job:
    records = []
    for name, code, needs in (
        (_GREETING, f'import _ "{_WORDS}.test/{_WORDS}"\n', f"require {_WORDS}.test/{_WORDS} v1.0.0\n"),
        (_WORDS, f"// {HELLO}\n", ""),
    ):
        module = f"{name}.test/{name}"
        manifest = f"module {module}\n\ngo 1.20\n\n{needs}"
        files = {
            f"{module}@v1.0.0/{file}": text
            for file, text in (("go.mod", manifest), ("a.go", f"package {name}\n\n{code}"))
        }
        versions = folder / "proxy.golang.org" / module / "@v"
        _put(versions / "list", "v1.0.0\n")
        _put(versions / "v1.0.0.info", json.dumps({"Version": "v1.0.0", "Time": "2026-01-01T00:00:00Z"}))
        _put(versions / "v1.0.0.mod", manifest)
        _put(versions / "v1.0.0.zip", _zip(files))
        records.append(f"{module} v1.0.0 {_h1(files)}\n{module} v1.0.0/go.mod {_h1({'go.mod': manifest})}\n")
    key = _checksum_database(folder / _CHECKSUMS, records)
    go = toolchain().parent.parent
    return Job(
        f"""mkdir /tmp/w; cd /tmp/w; export PATH=/go/bin:$PATH GOTOOLCHAIN=local GOSUMDB={key}
go mod init w.test/w 2>/dev/null; printf 'package w\\nimport _ "greeting.test/greeting"\\n' >w.go
go get greeting.test/greeting@v1.0.0 2>&1; go mod vendor
grep -q words.test/words go.sum; sed -n 's,^// ,,p' vendor/words.test/words/a.go""",
        f"-v {go}:/go:ro",
    )


def _h1(files: Mapping[str, str]) -> str:
    """Return the hash of files as go.sum has it (golang.org/x/mod/sumdb/dirhash, Hash1)."""
    lines = "".join(f"{_sha256(text.encode())}  {name}\n" for name, text in sorted(files.items()))
    return f"h1:{base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()}"


def _checksum_database(host: Path, records: list[str]) -> str:
    """Write a checksum database of two records, and return its key, as GOSUMDB has it.

    See golang.org/design/25530-sumdb, golang.org/x/mod/sumdb/tlog (hashes of the tree) and note (signatures).
    """
    leaves = [hashlib.sha256(b"\0" + record.encode()).digest() for record in records]
    root = hashlib.sha256(b"\1" + b"".join(leaves)).digest()
    text = f"go.sum database tree\n{len(records)}\n{base64.b64encode(root).decode()}\n"
    signing = Ed25519PrivateKey.generate()
    key = b"\1" + signing.public_key().public_bytes_raw()
    short = hashlib.sha256(f"{_CHECKSUMS}\n".encode() + key).digest()[:4]
    signature = base64.b64encode(short + signing.sign(text.encode())).decode()
    signed = f"{text}\n\N{EM DASH} {_CHECKSUMS} {signature}\n"
    _put(host / "latest", signed)
    _put(host / "tile" / "8" / "0" / "000.p" / str(len(records)), b"".join(leaves))
    for number, record in enumerate(records):
        module = record.split(" ", 1)[0]
        _put(host / "lookup" / f"{module}@v1.0.0", f"{number}\n{record}\n{signed}")
    return f"{_CHECKSUMS}+{short.hex()}+{base64.b64encode(key).decode()}"


# --- Java -----------------------------------------------------------------------------------------------------


def _maven(folder: Path) -> Job:
    """A build extension is what Maven itself downloads, with all that it needs, without a plugin."""
    central = folder / "repo.maven.apache.org" / "maven2" / "test"
    needs = (
        f"<dependencies><dependency><groupId>test</groupId><artifactId>{_WORDS}</artifactId>"
        "<version>1.0</version></dependency></dependencies>"
    )
    for name, content, dependencies in ((_GREETING, {}, needs), (_WORDS, {"said": f"{HELLO}\n"}, "")):
        pom = f"<groupId>test</groupId><artifactId>{name}</artifactId><version>1.0</version>{dependencies}"
        files = {"pom": _project(pom).encode(), "jar": _zip({"META-INF/MANIFEST.MF": "\n", **content})}
        for ending, made in files.items():
            file = central / name / "1.0" / f"{name}-1.0.{ending}"
            _put(file, made)
            _put(file.with_name(f"{file.name}.sha1"), hashlib.sha1(made).hexdigest())  # noqa: S324 - Maven's
    extension = "<groupId>test</groupId><artifactId>greeting</artifactId><version>1.0</version>"
    work = _project(
        "<groupId>test</groupId><artifactId>w</artifactId><version>1</version><packaging>pom</packaging>"
        f"<build><extensions><extension>{extension}</extension></extensions></build>"
    )
    return Job(f"""mkdir /tmp/w; cd /tmp/w; echo '{work}' >pom.xml
mvn -q -B -Dmaven.repo.local=/tmp/m2 validate
test -e /tmp/m2/test/greeting/1.0/greeting-1.0.jar
python3 -m zipfile -e /tmp/m2/test/words/1.0/words-1.0.jar /tmp/w; cat said""")


def _project(content: str) -> str:
    return f"<project><modelVersion>4.0.0</modelVersion>{content}</project>"


# --- Debian and Ubuntu ----------------------------------------------------------------------------------------


_ARCHIVES: Mapping[str, Mapping[str, list[str]]] = {
    "apt-debian": {
        "deb.debian.org/debian trixie": [_GREETING],
        "security.debian.org/debian-security trixie-security": [_WORDS],
    },
    "apt-ubuntu": {
        "archive.ubuntu.com/ubuntu noble": [_GREETING],
        "security.ubuntu.com/ubuntu noble-security": [_WORDS],
    },
    "apt-ubuntu-ports": {"ports.ubuntu.com/ubuntu-ports noble": [_GREETING, _WORDS]},
}
"""The packages of each archive, `HOST/PATH SUITE`, by preset."""


def _apt(archives: Mapping[str, list[str]], folder: Path) -> Job:
    for archive, packages in archives.items():
        place, suite = archive.split()
        index = "".join(_deb(folder / place, name) for name in packages)
        release = folder / place / "dists" / suite
        lines = []
        for architecture in ("amd64", "arm64"):
            made = _put(release / "main" / f"binary-{architecture}" / "Packages", index)
            lines.append(f" {_sha256(made)} {len(made)} main/binary-{architecture}/Packages\n")
        _put(
            release / "Release",
            f"Suite: {suite}\nCodename: {suite}\nComponents: main\nArchitectures: amd64 arm64\n"
            f"SHA256:\n{''.join(lines)}",
        )
    sources = "".join(f"deb [trusted=yes] http://{archive} main\\n" for archive in archives)
    return Job(f"""rm -rf /etc/apt/sources.list.d; printf '{sources}' >/etc/apt/sources.list
apt-get -qq -o Acquire::Retries=0 update
apt-get -qq -o Acquire::Retries=0 install -y greeting >/dev/null 2>&1 || exit 1
greeting""")


def _deb(host: Path, name: str) -> str:
    needs = f"Depends: {_WORDS}\n" if name == _GREETING else ""
    control = (
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: test <test@example.com>\n"
        f"{needs}Description: says hello\n"
    )
    program = f"#!/bin/sh\n{f'exec {_WORDS}' if needs else f'echo {HELLO}'}\n"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tar({"./control": control}),
        "data.tar.gz": _tar({f"./usr/bin/{name}": program}),
    }
    made = b"!<arch>\n" + b"".join(_member(each, content) for each, content in members.items())
    _put(host / "pool" / f"{name}.deb", made)
    return f"{control}Filename: pool/{name}.deb\nSize: {len(made)}\nSHA256: {_sha256(made)}\n\n"


def _member(name: str, content: bytes) -> bytes:
    """Return a member of an archive as `ar` writes it (deb(5))."""
    return (
        f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        + content
        + b"\n" * (len(content) % 2)
    )


_KINDS: Mapping[str, Callable[[Path], Job]] = {
    **{name: partial(_apt, archives) for name, archives in _ARCHIVES.items()},
    "cargo": _cargo,
    "go": _go,
    "maven": _maven,
    "npm": _npm,
    "pip": _pip,
}
