"""The image of the program has the same bytes wherever, whenever and however it is made."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from clawker_fw.fleet.program import bytecode, libraries
from clawker_fw.fleet.program.elf import needs
from clawker_fw.fleet.program.image import ENVIRONMENT, PROGRAM, Distribution
from clawker_fw.stack import built
from clawker_fw.stack.release import Release
from devkit.stacks import CHECKOUT

MADE = """
import os, sys
os.umask(int(sys.argv[1], 8))
for name in sys.argv[2:]:
    __import__(name)
from clawker_fw.fleet.program.image import Distribution
from clawker_fw.stack.release import Release
import hashlib
image = Distribution(Release.installed()).image
sum_ = hashlib.sha256()
for chunk in image.archive():
    sum_.update(chunk)
print(*image.ids, sum_.hexdigest())
"""


@pytest.fixture(scope="module")
def distribution(release: Release) -> Distribution:
    """What is installed here."""
    return Distribution(release)


def making(folder: Path, umask: str, *loaded: str, **variables: str) -> "subprocess.Popen[str]":
    """Make the image in a process of its own, which prints both ids and the digest of the archive."""
    command = [sys.executable, "-c", MADE, umask, *loaded]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **variables}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_images_have_the_same_bytes(distribution: Distribution, tmp_path: Path) -> None:
    """Folder, umask, time zone, the order of hashes, and what else is loaded make no difference."""
    with (
        making(tmp_path, "022", PYTHONHASHSEED="1", TZ="UTC") as first,
        making(
            Path("/"), "077", "sqlite3", "asyncio", "rich.console", PYTHONHASHSEED="2", TZ="Asia/Tokyo"
        ) as other,
    ):
        said, said_by_other = (each.communicate(timeout=600)[0].split() for each in (first, other))
    assert said == said_by_other
    assert tuple(said[:2]) == distribution.image.ids


def test_nothing_in_the_image_says_where_it_was_made(distribution: Distribution) -> None:
    """No path of this machine is in what was written for it: bytecode, and the lists of files."""
    of_here = {str(CHECKOUT).encode(), sysconfig.get_path("purelib").encode(), sys.base_prefix.encode()}
    generated = [
        each
        for each in distribution.image.entries
        if (each.made or each.content is not None) and "_sysconfigdata" not in each.path  # Python's own
    ]
    assert len(generated) > 500
    for each in generated:
        content = b"".join(each.blocks())
        assert not [path for path in of_here - {b"/usr"} if path in content], each.path


def test_what_is_in_it(distribution: Distribution) -> None:
    """It has the program, its helpers for both architectures, Python, and no shell, tests, or installers."""
    paths = [each.path for each in distribution.image.entries]
    assert paths == sorted(paths, key=lambda path: path.split("/"))
    assert len(set(paths)) == len(paths)
    packages = f"opt/clawker-fw/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for name in ("coredns", "fwctl"):
        assert {f"{packages}/clawker_fw/bin/{name}-linux-{each}" for each in ("amd64", "arm64")} < set(paths)
    assert f"{packages}/clawker_fw/templates/Corefile.j2" in paths
    assert f"{packages}/envoy/_bin/envoy" in paths
    names = {part for path in paths for part in path.split("/")}
    assert names.isdisjoint({"sh", "bash", "busybox", "pip", "setuptools", "ensurepip", "tkinter", "pytest"})
    assert not [path for path in paths if path.startswith("usr/local/lib/") and "/test/" in path]
    modes = {each.path: each.header().mode for each in distribution.image.entries}
    assert (modes["tmp"], modes["var/lib/clawker-fw"], modes[PROGRAM[1:]]) == (0o1777, 0o700, 0o755)


def test_how_a_container_of_it_is_started(distribution: Distribution) -> None:
    """Its config has the program as the entry point, fixed folders, and the release that it is of."""
    image = distribution.image
    text = built.config(image.version, image.architecture, "x", image.labels, image.settings)
    config = json.loads(text)
    assert config["config"]["Entrypoint"] == [PROGRAM]
    assert (config["config"]["StopSignal"], config["config"]["User"]) == ("SIGTERM", "0:0")
    assert config["config"]["Env"] == sorted(f"{name}={value}" for name, value in ENVIRONMENT.items())
    assert config["config"]["Labels"]["org.opencontainers.image.revision"] == distribution.release.build_sha
    assert image.references == (f"clawker-fw:{image.version}-{image.ids[0][7:19]}", f"clawker-fw:{image.version}")


def test_an_elf_file_needs_what_the_loader_loads() -> None:
    """The libraries found for Python and its extension modules are those that the dynamic loader finds."""
    folder = Path(sysconfig.get_config_var("DESTSHARED"))
    files = [Path(sys.executable).resolve(), *sorted(folder.glob("_ssl.*")), *sorted(folder.glob("_ctypes.*"))]
    found = libraries.needed_by(files)
    assert not found.missing
    (loader,) = found.loaders
    loaded: dict[str, Path] = {}
    for file in files:
        listed = subprocess.run([loader, "--list", str(file)], capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            if arrow and not name.startswith(("ld-linux", "/")):
                loaded[name] = Path(rest.split(" (")[0]).resolve()
    assert found.libraries == loaded


def test_what_is_no_elf_file_needs_nothing(tmp_path: Path) -> None:
    """A text needs nothing; a file that only begins like one is told as damaged."""
    text, cut = tmp_path / "text", tmp_path / "cut"
    text.write_text("#!/bin/sh\n")
    cut.write_bytes(Path(sys.executable).resolve().read_bytes()[:200])
    assert needs(text) is None
    with pytest.raises(ValueError, match="damaged"):
        needs(cut)


def test_bytecode_is_what_python_loads(tmp_path: Path) -> None:
    """Python runs the bytecode without looking at the source, and tracebacks name the source in the image."""
    source = tmp_path / "module.py"
    source.write_text("def where():\n    return where.__code__.co_filename, {'a', 'b'}, ' ', 'x y'\n")
    path = bytecode.path_of(str(source))
    Path(path).parent.mkdir()
    Path(path).write_bytes(bytecode.compiled(source, path))
    source.write_text("raise SystemExit('the source was read')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import module; print(module.where()[0])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(source)


def test_a_source_that_is_no_python_is_left_to_python(tmp_path: Path) -> None:
    """Packages have templates that end with `.py`. They get bytecode that Python ignores."""
    source = tmp_path / "template.py"
    source.write_text("{{ not python }} =\n")
    assert bytecode.compiled(source, bytecode.path_of(str(source))) == b""
