"""The image with real clients and servers, from packages of Debian, and of PyPI where Debian has none."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from docker import APIClient

from devkit.engines import bootstrap, run
from devkit.floor import lock
from devkit.kept import KEPT
from hatch_build import compile_program

REFERENCE = "clawker-fw/clients"
WORKS, REFUSED, HALF = "works.test", "refused.test", "half.test"
"""Names below these are allowed, are not, or are with another protocol or port only."""

REGISTRIES = (
    *("archive.ubuntu.com", "deb.debian.org", "files.pythonhosted.org", "index.crates.io", "ports.ubuntu.com"),
    *("proxy.golang.org", "pypi.org", "registry.npmjs.org", "repo.maven.apache.org", "security.debian.org"),
    *("security.ubuntu.com", "static.crates.io", "sum.golang.org"),
)

INSPECTED, KEYED = "inspected.test", "keyed.test"
"""Names below these are in rules that inspect TLS. Hosts of the latter demand `TOKEN`."""

TOKEN = "open-sesame"  # noqa: S105 - of no use anywhere else
"""The token that they demand: as a bearer's, or as the password of the user that code hosts take."""

DOCUMENTED = ("example.com", "cdn.example.net", "example.org", "npm.example.org", "pypi.example.org")
"""Names below these are in the recipes of the documentation."""

_SUITE = "trixie"
_PACKAGES = (
    *("ca-certificates", "curl", "git", "nodejs", "npm", "openjdk-21-jdk-headless", "openssh-client", "openssl"),
    *("ntpsec-ntpdig", "postgresql-client", "python3-pip", "wget"),
    *("chrony", "fcgiwrap", "nginx-light", "openssh-server", "postgresql", "python3-websockets"),
    *("docker-registry", "gh", "git-lfs", "python3-grpcio", "skopeo"),
    *("libmono-system-net-http4.0-cil", "mono-mcs"),
    *("python3-cachetools", "python3-dateutil", "python3-dotenv", "python3-flask", "python3-jwt"),
    *("python3-webargs", "python3-yaml", "squid-openssl", "docker-compose", "cargo", "maven"),
)
"""Clients, servers, and compose, which an agent is started with."""

_WHEELS = Path(__file__).with_name("requirements.txt")
_CONTENT = Path(__file__).with_name("content")
_KEPT = KEPT / "clients"

_LEFT_OUT = """
./dev/* ./here ./proc/* ./run/* ./sys/* ./tmp/*
./usr/lib/*/*.a ./usr/lib/*/libLLVM* ./usr/lib/*/libz3* ./usr/lib/*/librustc_driver* ./usr/lib/rustlib/*
./usr/lib/gcc/* ./usr/libexec/gcc/* ./usr/bin/*-lto-dump-* ./usr/bin/rustdoc ./usr/lib/*/lib*san.so.* ./usr/lib/cni
./usr/lib/jvm/*/jmods ./usr/lib/jvm/*/lib/src.zip ./usr/lib/postgresql/*/lib/bitcode
./usr/lib/python3/dist-packages/django
./usr/share/doc/* ./usr/share/i18n ./usr/share/locale/* ./usr/share/man/* ./var/cache/apt/* ./var/lib/apt/lists/*
"""
"""What no client or server needs, and what is half of the size: documentation, compilers that are never asked."""

_CHROOT = 'chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive'

# policy-rc.d prevents packages from starting their servers (invoke-rc.d(8)).
_INSTALL = f"""
printf '#!/bin/sh\\nexit 101\\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
{_CHROOT} apt-get install --no-install-recommends --yes -o DPkg::Options::=--force-unsafe-io "$@"
{_CHROOT} apt-get clean
"""

_FURNISH = f"""
mkdir "$root/here"
mount --bind "$1" "$root/here"
{_CHROOT} HERE=/here NAMES="$2" TOKEN="$3" sh /here/furnish.sh
"""


def load(client: APIClient) -> str:
    """Load the image into an engine, and return its reference. The first use on a machine makes it, in minutes."""
    archive = _archive(client.version()["Arch"])
    client.import_image_from_file(str(archive), repository=REFERENCE, tag="dev")
    return f"{REFERENCE}:dev"


def compose_program() -> Path:
    """Return compose alone, which runs on this machine. The first use takes it out of the packages."""
    with lock(KEPT / "clients.lock"):
        packages = _packages()
        kept = packages.with_suffix(".compose")  # removed with them
        if not kept.exists():
            member = "./usr/libexec/docker/cli-plugins/docker-compose"
            fresh = kept.with_suffix(".new")
            with fresh.open("wb") as out:
                subprocess.run(["tar", "-xOf", packages, member], stdout=out, check=True)
            fresh.chmod(0o755)
            fresh.rename(kept)
    return kept


def _archive(architecture: str) -> Path:
    """Return the image's files as a tar. Its name is the digest of everything that it is made from."""
    sources = [Path(__file__), _WHEELS, *sorted(path for path in _CONTENT.rglob("*") if path.is_file())]
    made = _KEPT / f"image-{_digest(*(path.read_bytes() for path in sources))}-{architecture}.tar"
    with lock(KEPT / "clients.lock"):  # another process may be at it
        if not made.exists():
            _furnish(_packages(), made, architecture)
    return made


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _packages() -> Path:
    archive = _KEPT / f"packages-{_digest(_SUITE.encode(), *(name.encode() for name in _PACKAGES))}.tar"
    if not archive.exists():
        print(f"installing real clients and servers in {archive}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="clients-", dir=KEPT) as building:
            root = Path(building, "root")
            bootstrap(_SUITE, root, ["ca-certificates"])
            # by apt, because debootstrap chooses among alternatives without looking
            _in_root(_INSTALL, root, *_PACKAGES)
            _keep(root, archive)
    return archive


def _wheels() -> Path:
    folder = _KEPT / f"wheels-{_digest(_WHEELS.read_bytes())}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix="clients-", dir=KEPT) as building:
            made = Path(building, "wheels")
            what = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", _WHEELS)
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--dest", made, *what], check=True)
            for earlier in _KEPT.glob("wheels-*"):
                shutil.rmtree(earlier)
            made.rename(folder)  # only a complete one has this name
    return folder


def _furnish(packages: Path, archive: Path, architecture: str) -> None:
    with tempfile.TemporaryDirectory(prefix="clients-", dir=KEPT) as building:
        root, here = Path(building, "root"), Path(building, "here")
        root.mkdir()
        subprocess.run(["tar", "-C", root, "--numeric-owner", "-xpf", packages], check=True)
        shutil.copytree(_CONTENT, here)
        shutil.copytree(_wheels(), here / "wheels")
        compile_program(_CONTENT / "fetch", here / "fetch-go", architecture)
        below = (f"*.{zone}" for zone in (WORKS, REFUSED, HALF, INSPECTED, KEYED, *DOCUMENTED))
        names = ",".join(f"DNS:{name}" for name in (*below, *REGISTRIES))
        _in_root(_FURNISH, root, here, names, TOKEN)
        _keep(root, archive)


def _keep(root: Path, archive: Path) -> None:
    made = root.with_name("made.tar")
    left_out = [f"--exclude={pattern}" for pattern in _LEFT_OUT.split()]
    subprocess.run(["tar", "-C", root, *left_out, "--numeric-owner", "-cf", made, "."], check=True)
    _KEPT.mkdir(exist_ok=True)
    for earlier in _KEPT.glob(f"{archive.name.partition('-')[0]}-*"):
        earlier.unlink()
    made.rename(archive)  # only a complete one has this name


def _in_root(script: str, root: Path, *arguments: str | Path) -> None:
    """Run a shell script that does something in `$root`. Nothing that it mounts or starts remains."""
    whole = f'root=$1\nshift\nmount -t proc proc "$root/proc"\nmount --rbind /dev "$root/dev"\n{script}'
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    run([*namespaces, "sh", "-ec", whole, "sh", root, *arguments], timeout=3600)
