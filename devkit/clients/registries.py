"""Web hosts with the names of presets' registries. Each has a package `hello`, which prints that."""

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


def _pip(folder: Path) -> Job:
    file, info = "hello-1.0-py3-none-any.whl", "hello-1.0.dist-info"
    wheel = {
        "hello.py": "print('hello')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{each},,\n" for each in (*wheel, f"{info}/RECORD"))
    made = _put(folder / "files.pythonhosted.org" / "packages" / file, _zip({**wheel, f"{info}/RECORD": record}))
    url = f"https://files.pythonhosted.org/packages/{file}#sha256={_sha256(made)}"
    _put(folder / "pypi.org" / "simple" / "hello" / "index.html", f'<a href="{url}">{file}</a>\n')
    return Job("PIP_RETRIES=0 pip install -q --target /tmp/p hello; cd /tmp/p; python3 -c 'import hello'")


def _npm(folder: Path) -> Job:
    host, place = folder / "registry.npmjs.org", "hello/-/hello-1.0.0.tgz"
    described = {"name": "hello", "version": "1.0.0", "main": "index.js"}
    files = {"package/package.json": json.dumps(described), "package/index.js": "console.log('hello')"}
    integrity = base64.b64encode(hashlib.sha512(_put(host / place, _tar(files))).digest()).decode()
    source = {"tarball": f"https://registry.npmjs.org/{place}", "integrity": f"sha512-{integrity}"}
    versions = {"1.0.0": {**described, "dist": source}}
    known = {"name": "hello", "dist-tags": {"latest": "1.0.0"}, "versions": versions}
    _put(host / "hello.json", json.dumps(known))
    return Job("cd /tmp; NPM_CONFIG_FETCH_RETRIES=0 npm install hello >/dev/null; node -e 'require(\"hello\")'")


def _cargo(folder: Path) -> Job:
    index, crates = folder / "index.crates.io", folder / "static.crates.io" / "crates"
    _put(index / "config.json", json.dumps({"dl": "https://static.crates.io/crates", "api": "https://crates.io"}))
    manifest = '[package]\nname = "hello"\nversion = "1.0.0"\nedition = "2021"\n'
    crate = _tar({"hello-1.0.0/Cargo.toml": manifest, "hello-1.0.0/src/lib.rs": "// hello\n"})
    _put(crates / "hello" / "1.0.0" / "download", crate)
    checksum = _sha256(crate)
    entry = {"name": "hello", "vers": "1.0.0", "deps": [], "cksum": checksum, "features": {}, "yanked": False}
    _put(index / "he" / "ll" / "hello", json.dumps(entry) + "\n")
    return Job("""mkdir -p /tmp/w/src; cd /tmp/w; touch src/lib.rs
printf '[package]\\nname = "w"\\nversion = "0.1.0"\\nedition = "2021"\\n' >Cargo.toml
printf '[dependencies]\\nhello = "1"\\n' >>Cargo.toml
CARGO_NET_RETRY=0 cargo vendor -q >/dev/null
cut -c4- vendor/hello/src/lib.rs""")


def _go(folder: Path) -> Job:
    module, manifest = "hello.test/hello", "module hello.test/hello\n\ngo 1.20\n"
    files = {f"{module}@v1.0.0/go.mod": manifest, f"{module}@v1.0.0/a.go": "package hello\n\n// hello\n"}
    versions = folder / "proxy.golang.org" / module / "@v"
    _put(versions / "list", "v1.0.0\n")
    _put(versions / "v1.0.0.info", json.dumps({"Version": "v1.0.0", "Time": "2026-01-01T00:00:00Z"}))
    _put(versions / "v1.0.0.mod", manifest)
    _put(versions / "v1.0.0.zip", _zip(files))
    record = f"{module} v1.0.0 {_h1(files)}\n{module} v1.0.0/go.mod {_h1({'go.mod': manifest})}\n"
    key = _checksum_database(folder / _CHECKSUMS, f"{module}@v1.0.0", record)
    go = toolchain().parent.parent
    return Job(
        f"""mkdir /tmp/w; cd /tmp/w; export PATH=/go/bin:$PATH GOTOOLCHAIN=local GOSUMDB={key}
go mod init w.test/w 2>/dev/null; printf 'package w\\nimport _ "{module}"\\n' >w.go
go get {module}@v1.0.0 2>&1; go mod vendor
grep -q {module} go.sum; sed -n 's,^// ,,p' vendor/{module}/a.go""",
        f"-v {go}:/go:ro",
    )


def _h1(files: Mapping[str, str]) -> str:
    """Return the hash of files as go.sum has it (golang.org/x/mod/sumdb/dirhash, Hash1)."""
    lines = "".join(f"{_sha256(text.encode())}  {name}\n" for name, text in sorted(files.items()))
    return f"h1:{base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()}"


def _checksum_database(host: Path, module: str, record: str) -> str:
    """Write a checksum database of one record, and return its key for GOSUMDB (golang.org/design/25530-sumdb)."""
    leaf = hashlib.sha256(b"\0" + record.encode()).digest()  # which is also the root of the tree
    text = f"go.sum database tree\n1\n{base64.b64encode(leaf).decode()}\n"
    signing = Ed25519PrivateKey.generate()
    key = b"\1" + signing.public_key().public_bytes_raw()
    short = hashlib.sha256(f"{_CHECKSUMS}\n".encode() + key).digest()[:4]
    signature = base64.b64encode(short + signing.sign(text.encode())).decode()
    signed = f"{text}\n\N{EM DASH} {_CHECKSUMS} {signature}\n"
    _put(host / "latest", signed)
    _put(host / "tile" / "8" / "0" / "000.p" / "1", leaf)
    _put(host / "lookup" / module, f"0\n{record}\n{signed}")
    return f"{_CHECKSUMS}+{short.hex()}+{base64.b64encode(key).decode()}"


def _maven(folder: Path) -> Job:
    """A build extension is what Maven itself downloads, without a plugin."""
    known = "<groupId>test</groupId><artifactId>hello</artifactId><version>1.0</version>"
    jar = _zip({"META-INF/MANIFEST.MF": "\n", "said": "hello\n"})
    for ending, made in {"pom": _project(known).encode(), "jar": jar}.items():
        file = folder / "repo.maven.apache.org" / "maven2" / "test" / "hello" / "1.0" / f"hello-1.0.{ending}"
        _put(file, made)
        _put(file.with_name(f"{file.name}.sha1"), hashlib.sha1(made).hexdigest())  # noqa: S324 - Maven's
    work = _project(
        "<groupId>test</groupId><artifactId>w</artifactId><version>1</version><packaging>pom</packaging>"
        f"<build><extensions><extension>{known}</extension></extensions></build>"
    )
    return Job(f"""mkdir /tmp/w; cd /tmp/w; echo '{work}' >pom.xml
mvn -q -B -Dmaven.repo.local=/tmp/m2 validate
python3 -m zipfile -e /tmp/m2/test/hello/1.0/hello-1.0.jar /tmp/w; cat said""")


def _project(content: str) -> str:
    return f"<project><modelVersion>4.0.0</modelVersion>{content}</project>"


_ARCHIVES: Mapping[str, Mapping[str, str]] = {
    "apt-debian": {
        "deb.debian.org/debian trixie": "greeting",
        "security.debian.org/debian-security trixie-security": "hello",
    },
    "apt-ubuntu": {
        "archive.ubuntu.com/ubuntu noble": "greeting",
        "security.ubuntu.com/ubuntu noble-security": "hello",
    },
    "apt-ubuntu-ports": {"ports.ubuntu.com/ubuntu-ports noble": "hello"},
}
"""The package of each archive, `HOST/PATH SUITE`, by preset. `greeting` needs `hello`."""


def _apt(archives: Mapping[str, str], folder: Path) -> Job:
    for archive, package in archives.items():
        place, suite = archive.split()
        index = _deb(folder / place, package)
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
apt-get -qq -o Acquire::Retries=0 install -y {next(iter(archives.values()))} >/dev/null 2>&1 || exit 1
hello""")


def _deb(host: Path, name: str) -> str:
    needs = "" if name == "hello" else "Depends: hello\n"
    control = (
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: test <test@example.com>\n"
        f"{needs}Description: says hello\n"
    )
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tar({"./control": control}),
        "data.tar.gz": _tar({f"./usr/bin/{name}": "#!/bin/sh\necho hello\n"}),
    }
    made = b"!<arch>\n" + b"".join(_member(each, content) for each, content in members.items())
    _put(host / "pool" / f"{name}.deb", made)
    return f"{control}Filename: pool/{name}.deb\nSize: {len(made)}\nSHA256: {_sha256(made)}\n\n"


def _member(name: str, content: bytes) -> bytes:
    """Return a member of an archive as `ar` writes it (deb(5))."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    return header.encode() + content + b"\n" * (len(content) % 2)


_KINDS: Mapping[str, Callable[[Path], Job]] = {
    **{name: partial(_apt, archives) for name, archives in _ARCHIVES.items()},
    "cargo": _cargo,
    "go": _go,
    "maven": _maven,
    "npm": _npm,
    "pip": _pip,
}
