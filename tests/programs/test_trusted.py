"""Real clients, with the files and variables that agents get, where the real Envoy looks into their TLS."""

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import certifi
import pytest

from clawker_fw.reconcile.entrust import Known, trust_for
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.engines import PATH, install
from devkit.envoy import program
from devkit.inspecting import PORT, Host, Signing, own_address
from devkit.signer import Signer
from devkit.waiting import until

NAME, DIRECT = "a.test", "direct.test"
"""The name of a host behind the proxy, and another name of it, at which clients reach the host itself."""

HELLO = "hello from behind the proxy"

PINNED = 90
"""What curl exits with when a key is not the expected one."""

PROGRAMS = {
    "cargo": "cargo",
    "curl": "curl",
    "git": "git",
    "javac": "default-jdk-headless",
    "mvn": "maven",
    "node": "nodejs",
    "npm": "npm",
    "openssl": "openssl",
    "wget": "wget",
}
"""Debian's packages of the clients that the development environment does not have."""


@dataclass(frozen=True)
class Site:
    """A host behind the proxy, and what clients are started with."""

    proxy: Signing
    host: Host
    folder: Path
    environment: dict[str, str]

    @property
    def place(self) -> str:
        """The address of the host, as agents see it."""
        return f"https://{NAME}:{self.proxy.ports[PORT]}"

    def run(self, script: str, **further: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in a folder of its own, in which `$HOST` is the address, and the name has one."""
        home = self.folder / f"home{os.urandom(4).hex()}"
        home.mkdir()
        hosts = home / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {NAME}\n{own_address()} {DIRECT}\n")
        rust = os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))  # where Rust is not Debian's
        variables = {"PATH": PATH, "HOME": str(home), "HOST": self.place, "RUSTUP_HOME": rust}
        command = ["unshare", "--mount", "sh", "-ec", f"mount --bind {hosts} /etc/hosts\n{script}"]
        return subprocess.run(
            command,
            cwd=home,
            env={**variables, **self.environment, **further},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Site]:
    """The proxy, its signer, and the host, for all clients."""
    install(PROGRAMS)
    folder = tmp_path_factory.mktemp("trusted")
    host = Host(folder / "tls", own_address(), NAME, DIRECT)
    (folder / "signing").mkdir()
    signer = Signer(folder / "signing")
    signer.give((NAME,), (), (NAME,))
    signer.start()
    (folder / "trust").mkdir()
    own = host.certificate.read_bytes()  # as a company's, in an image
    known = Known(certifi.contents().encode() + own, own)
    given = trust_for("clawker", signer.trust, known, str(folder / "trust"))
    for name, file in given.files.items():
        (folder / "trust" / name).write_bytes(file.content)
    (folder / "envoy").mkdir()
    with NameServer((NAME,), own_address()) as names:
        proxy = Signing(folder / "envoy", program(release), names.port, signer, host.certificate)
        entry = RuleEntry.model_validate({"dst": NAME, "port": PORT, "inspect": True})
        proxy.serve(RuleSet.of([entry.rule()]))
        until(proxy.serves)
        made = Site(proxy, host, folder, dict(given.environment))
        furnish(made)
        yield made
        proxy.process.terminate()
        proxy.process.wait()
    signer.end()
    host.close()


# --- what the host has ----------------------------------------------------------------------------------------


def wheel() -> bytes:
    """Return a package of Python."""
    made, info = io.BytesIO(), "greeting-1.0.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("greeting.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return made.getvalue()


POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>test</groupId><artifactId>{}</artifactId><version>1</version><packaging>pom</packaging>{}</project>"""
PARENT = "<parent><groupId>test</groupId><artifactId>greeting</artifactId><version>1</version></parent>"


def furnish(site: Site) -> None:
    """Have the host serve an index of each kind, with one package, and a repository."""
    place, version = site.place, {"name": "greeting", "version": "1.0.0"}
    parent = POM.format("greeting", "")
    site.host.contents.update(
        {
            "/hello": f"{HELLO}\n".encode(),
            "/simple/greeting/": b'<a href="/greeting-1.0-py3-none-any.whl">greeting-1.0-py3-none-any.whl</a>',
            "/greeting-1.0-py3-none-any.whl": wheel(),
            "/npm/greeting": json.dumps(
                {"name": "greeting", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
            ).encode(),
            "/crates/config.json": json.dumps({"dl": f"{place}/crates/{{crate}}"}).encode(),
            "/crates/gr/ee/greeting": json.dumps(
                {
                    "name": "greeting",
                    "vers": "1.0.0",
                    "deps": [],
                    "cksum": "0" * 64,
                    "features": {},
                    "yanked": False,
                }
            ).encode(),
            "/maven/test/greeting/1/greeting-1.pom": parent.encode(),
            "/maven/test/greeting/1/greeting-1.pom.sha1": hashlib.sha1(parent.encode(), usedforsecurity=False)
            .hexdigest()
            .encode(),
            "/go/a.test/greeting/@v/list": b"v1.0.0\n",
            "/go/a.test/greeting/@v/v1.0.0.info": b'{"Version": "v1.0.0"}',
            "/go/a.test/greeting/@v/v1.0.0.mod": b"module a.test/greeting\n",
            "/debian/Packages": b"Package: greeting\nVersion: 1\nArchitecture: all\nFilename: ./a.deb\n\n",
            "/repository.git/info/refs": f"{'1' * 40}\trefs/heads/main\n".encode(),
            "/repository.git/HEAD": b"ref: refs/heads/main\n",
        }
    )


# --- the clients ----------------------------------------------------------------------------------------------

JAVA = """cat >Fetch.java <<'END'
import java.net.URI;
import java.net.http.*;
class Fetch {
    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        System.out.println(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
END
java -XX:TieredStopAtLevel=1 Fetch.java $HOST/hello"""

MAVEN = f"""cat >pom.xml <<'END'
{POM.format("child", PARENT)}
END
cat >settings.xml <<END
<settings><mirrors><mirror><id>here</id><mirrorOf>*</mirrorOf><url>$HOST/maven</url></mirror></mirrors></settings>
END
mvn -q -B -s settings.xml -Dmaven.repo.local=repository validate
cat repository/test/greeting/1/greeting-1.pom"""

CARGO = """mkdir -p .cargo src
printf '[registries.here]\nindex = "sparse+%s/crates/"\n' "$HOST" >.cargo/config.toml
printf '[package]\nname = "child"\nversion = "1.0.0"\n' >Cargo.toml
printf '[dependencies]\ngreeting = { version = "1", registry = "here" }\n' >>Cargo.toml
touch src/lib.rs
cargo generate-lockfile
cat Cargo.lock"""

APT = """mount -t tmpfs none /etc/apt/apt.conf.d # as in an image, without what this machine has
mkdir -p state/lists/partial cache/archives/partial
echo "deb [trusted=yes] $HOST/debian ./" >sources.list
here="-o Dir::Etc::SourceList=$PWD/sources.list -o Dir::Etc::SourceParts=-"
here="$here -o Dir::State=$PWD/state -o Dir::Cache=$PWD/cache"
apt-get $here -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any update
apt-cache $here policy greeting"""

PYTHON = sys.executable
UV = f"{Path(PYTHON).with_name('uv')} pip install"
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
REQUESTS = "import sys, requests; print(requests.get(sys.argv[1]).text)"
NODE = "fetch(process.argv[1]).then(answer => answer.text()).then(console.log)"

CLIENTS = {
    "curl": ("curl -fsS $HOST/hello", HELLO),
    "wget": ("wget -nv -O - $HOST/hello", HELLO),
    "git": ("git ls-remote $HOST/repository.git", "refs/heads/main"),
    "Python": (f"{PYTHON} -c '{FETCH}' $HOST/hello", HELLO),
    "requests": (f"{PYTHON} -c '{REQUESTS}' $HOST/hello", HELLO),
    "pip": (
        f"{PYTHON} -m pip download -q --no-deps --index-url $HOST/simple/ greeting; ls",
        "greeting-1.0-py3-none-any.whl",
    ),
    "uv": (
        f"{UV} -q --no-deps --python {PYTHON} --target there --index-url $HOST/simple/ greeting; ls there",
        "greeting-1.0.dist-info",
    ),
    "apt": (APT, "greeting:"),
    "Node": (f"node -e '{NODE}' $HOST/hello", HELLO),
    "npm": ("npm view greeting version --fetch-retries 0 --registry $HOST/npm/", "1.0.0"),
    "Cargo": (CARGO, 'name = "greeting"'),
    "Java": (JAVA, HELLO),
    "Maven": (MAVEN, "<artifactId>greeting</artifactId>"),
    "Go": ("GOPROXY=$HOST/go GONOSUMDB=* GOFLAGS=-mod=mod go list -m -versions a.test/greeting", "v1.0.0"),
    "OpenSSL": (
        "openssl s_client -verify_return_error -brief -connect ${HOST#https://} </dev/null 2>&1",
        "Verification: OK",
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_works(site: Site, client: str) -> None:
    """With what agents get, and with nothing else. Without, it fails: nothing on this machine trusts the root."""
    script, expected = CLIENTS[client]
    done = site.run(script)
    assert expected in done.stdout, done.stdout + done.stderr
    bare = site.run(script, **dict.fromkeys(site.environment, ""))
    assert bare.returncode != 0, bare.stdout


@pytest.mark.parametrize("client", ["curl", "requests", "Node", "Java"])
def test_what_the_image_trusts_is_still_trusted(site: Site, client: str) -> None:
    """A host that is not inspected, with a certificate of an authority that only the image knows."""
    script, expected = CLIENTS[client]
    done = site.run(script, HOST=f"https://{DIRECT}:{PORT}")
    assert expected in done.stdout, done.stdout + done.stderr


def test_a_pinned_key_is_noticed(site: Site) -> None:
    """A client that expects the host's own key refuses the proxy's, as it should."""
    key = subprocess.run(
        [
            "sh",
            "-c",
            f"openssl pkey -in {site.host.key} -pubout -outform DER | openssl dgst -sha256 -binary | base64",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    pinned = f"curl -sS --pinnedpubkey sha256//{key}"
    assert HELLO in site.run(f"{pinned} $HOST/hello", HOST=f"https://{DIRECT}:{PORT}").stdout
    assert site.run(f"{pinned} $HOST/hello").returncode == PINNED
