"""`examples/signed-rules`: its script with the real `oras`, `cosign` and registry, and its units in systemd."""

import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clawker_fw.settings.validation import load_settings
from devkit.debian_programs import unpacked
from devkit.engines import EngineError
from devkit.registry import own_registry
from devkit.stacks import CHECKOUT, environment
from devkit.units import install_systemd, verify

EXAMPLE = CHECKOUT / "examples" / "signed-rules"
PUBLISHING = (CHECKOUT / "docs/signed-rules.md").read_text("utf-8").partition("```sh\n")[2].partition("```")[0]
"""The commands that the documentation gives for CI."""

RULES = "rules: [{dst: %s.test}]\n"


@dataclass
class Place:
    """A repository in a registry with its storage, the publishers' keys, and the folder of a host."""

    repository: str
    storage: Path
    keys: Path
    folder: Path
    variables: Mapping[str, str]
    published: list[str] = field(default_factory=list)

    @property
    def rules(self) -> Path:
        """The rules on the host."""
        return self.folder / "host" / "rules.yaml"

    def call(self, *argv: str | Path, folder: Path | None = None) -> str:
        """Run a program that must succeed, and return its output."""
        done = subprocess.run(
            argv, cwd=folder, env=dict(self.variables), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def publish(self, version: int | str, rules: str, *, key: str = "rules", without: str = "") -> str:
        """Publish as documented, without the lines that begin with a word. Return the digest."""
        folder = self.folder / f"ci-{len(self.published)}"
        folder.mkdir()
        (folder / "rules.yaml").write_text(rules)
        shutil.copy(self.keys / f"{key}.key", folder / "cosign.key")
        script = PUBLISHING.replace("$(git rev-list --count HEAD)", str(version))
        script = script.replace("registry.example.com/team/rules", self.repository)
        lines = [line for line in script.splitlines() if not (without and line.startswith(without))]
        said = self.call("sh", "-ec", "\n".join([*lines, "echo $digest"]), folder=folder)
        self.published.append(said.split()[-1])
        return self.published[-1]

    def take(self, key: str = "rules") -> subprocess.CompletedProcess[str]:
        """Run the script on the host."""
        self.rules.parent.mkdir(exist_ok=True)
        argv = ("take-rules", f"{self.repository}:production", f"{self.keys}/{key}.pub", str(self.rules))
        return subprocess.run(
            argv,
            executable=EXAMPLE / argv[0],
            env=dict(self.variables),
            capture_output=True,
            text=True,
            check=False,
        )

    def publish_damaged(self, damage: Callable[[Path], object]) -> None:
        """Publish signed rules, and damage their file in the registry."""
        rules = RULES % secrets.token_hex(8)
        self.publish(3, rules)
        blobs = self.storage.rglob("blobs/sha256/*/*/data")
        (blob,) = (path for path in blobs if rules.encode() in path.read_bytes())
        damage(blob)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real registry: its address, and its folder."""
    folder = tmp_path_factory.mktemp("registry")
    with own_registry(folder) as address:
        yield address.replace("127.0.0.1", "localhost"), folder  # for which `oras` uses plain HTTP


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of all programs, with a PATH and without logins."""
    home = str(tmp_path_factory.mktemp("home"))
    path = f"{unpacked('cosign', 'oras')}:{Path(sys.executable).parent}:/usr/bin:/bin"
    return environment(PATH=path, HOME=home, DOCKER_CONFIG=home, COSIGN_PASSWORD="")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, variables: Mapping[str, str]) -> Path:
    """A folder with two key pairs: `rules`, which hosts trust, and `other`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("rules", "other"):
        argv = ["cosign", "generate-key-pair", "--output-key-prefix", name]
        subprocess.run(argv, cwd=folder, env=dict(variables), check=True, capture_output=True)
    return folder


MakePlace = Callable[[Path], Place]


@pytest.fixture(scope="module")
def make_place(registry: tuple[str, Path], keys: Path, variables: Mapping[str, str]) -> MakePlace:
    address, storage = registry
    return lambda folder: Place(f"{address}/{secrets.token_hex(4)}/rules", storage, keys, folder, variables)


@pytest.fixture
def place(make_place: MakePlace, tmp_path: Path) -> Place:
    return make_place(tmp_path)


@pytest.fixture(scope="module")
def at_two(make_place: MakePlace, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A host with version 2, which has had version 1."""
    made = make_place(tmp_path_factory.mktemp("at-two"))
    for version in (1, 2):
        made.publish(version, RULES % f"good{version}")
        assert made.take().returncode == 0
    return made


def test_signed_rules_are_taken(place: Place) -> None:
    """Settings that include the rules get each change, and unchanged rules are not written again."""
    for version, name in ((9, "first"), (10, "second")):
        place.publish(version, RULES % name)
        done = place.take()
        assert done.returncode == 0, done.stderr
        settings = place.rules.with_name("clawker-fw.yaml")
        settings.write_text("include: [rules.yaml]\nnever: [.corp.test]\n")
        assert [str(rule.destination) for rule in load_settings(settings, {}).rules.rules] == [f"{name}.test"]
    before = place.rules.stat()
    assert place.take().returncode == 0
    assert place.rules.stat() == before


def with_the_signature_before(place: Place) -> None:
    """Publish rules with the signature of version 2."""
    digest = place.publish(3, RULES % "evil", without="cosign sign")
    of_two, of_three = (f"{each.replace(':', '-')}.sig" for each in (place.published[1], digest))
    place.call("oras", "tag", f"{place.repository}:{of_two}", of_three)


def changed(path: Path) -> None:
    """Replace a file by rules for an attacker's host."""
    path.write_bytes(path.read_bytes().replace(b".test", b".evil"))


REFUSED: Mapping[str, tuple[Callable[[Place], object], str]] = {
    "not signed": (lambda place: place.publish(3, RULES % "evil", without="cosign sign"), "no signatures found"),
    "signed with another key": (
        lambda place: place.publish(3, RULES % "evil", key="other"),
        "no matching signatures",
    ),
    "with the signature of others": (with_the_signature_before, "no matching signatures"),
    "tampered with in the registry": (lambda place: place.publish_damaged(changed), "mismatched digest"),
    "gone from the registry, but for the signature": (
        lambda place: place.publish_damaged(Path.unlink),
        "not found",
    ),
    "older": (
        lambda place: place.call("oras", "tag", f"{place.repository}@{place.published[0]}", "production"),
        "has version 1, and",
    ),
    "of the same version": (lambda place: place.publish(2, RULES % "other"), "has version 2, and"),
    "without a version": (lambda place: place.publish("new", RULES % "other"), "is not `# version: NUMBER`"),
    "not valid": (
        lambda place: place.publish(3, "rules: [{dst: a b}]\n", without="clawker-fw"),
        "error[settings-invalid]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_the_file(case: str, at_two: Place) -> None:
    """The script fails with the reason. The rules stay unchanged, and nothing is left beside them."""
    spoil, reason = REFUSED[case]
    before = at_two.rules.read_bytes()
    spoil(at_two)
    done = at_two.take()
    assert done.returncode != 0
    assert reason in done.stderr
    assert at_two.rules.read_bytes() == before
    assert [path.name for path in at_two.rules.parent.iterdir()] == ["rules.yaml"]


def test_two_signatures_are_for_hosts_with_either_key(place: Place) -> None:
    """While a key is replaced, rules carry both signatures."""
    digest = place.publish(1, RULES % "a")
    signing = next(line for line in PUBLISHING.splitlines() if line.startswith("cosign sign")).split()
    words = [word for word in signing if "cosign.key" not in word and "$digest" not in word and word != "--key"]
    place.call(*words, "--key", place.keys / "other.key", f"{place.repository}@{digest}")
    for key in ("rules", "other"):
        place.rules.unlink(missing_ok=True)
        done = place.take(key)
        assert done.returncode == 0, done.stderr


def test_the_units_are_ones_that_systemd_reads(require_engine: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """They have no unknown or malformed line, and the timer finds the service."""
    try:
        install_systemd()
    except EngineError as error:
        if require_engine:
            raise
        pytest.skip(f"NO UNIT IS TESTED: {error}")
    for unit in EXAMPLE.glob("take-rules.*"):
        text = unit.read_text().replace("/usr/local/bin", str(EXAMPLE))
        (tmp_path / unit.name).write_text(text)
    for name in ("take-rules.service", "take-rules.timer"):
        assert verify(tmp_path / name, "system") == (0, "")
