"""The settings that were checked last: what is kept is what checking would find, or it is not used."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clawker_fw.settings import kept, load, validation
from clawker_fw.settings.kept import Kept
from clawker_fw.settings.load import load_settings
from clawker_fw.settings.loaded import Loaded

SETTINGS = """\
project: shop
network: {subnet: 10.99.0.0/24}
otel: {endpoint: "collector.test:4317", sample: 0.5}
resources: {envoy: {memory: 1GiB, processors: 3}, coredns: {memory: 256MiB}}
limits: {idle: 90s}
drain_timeout: 5s
include: [team.yaml]
presets: [pip, {preset: npm, without: [registry.npmjs.org]}]
never: [.corp.test, {proto: udp, port: 1-1023}]
always: [{dst: a.test}]
rules:
- dst: a.test
- {dst: .b.test, proto: http, port: 8080, allow_private: true, note: "for \\u00e9"}
- {dst: c.b.test, action: deny}
- {dst: 192.0.2.5, as: d.test, proto: tcp, port: 5000-5010}
- {dst: 198.51.100.0/30, as: e.test, proto: tcp, port: 22}
- {dst: host, proto: tcp, port: 5432}
- {dst: f.test, until: "2090-01-31T18:00:00Z"}
- dst: g.test
  path_rules: [{path: /x, methods: [GET, HEAD]}, {path: "~/y/[0-9]+", action: deny}]
  path_default: allow
- {dst: h.test, git: {acme/widgets: read, acme/site: write}, lfs: true, inject: {secret: forge, as: basic}}
- {dst: i.test, proto: wss, inspect: true, insecure_skip_tls_verify: true}
"""

Read = Callable[..., Loaded]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file with something of every kind."""
    (tmp_path / "team.yaml").write_text("rules: [{dst: team.test}]\n")
    path = tmp_path / "clawker-fw.yaml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture
def read(file: Path, tmp_path: Path) -> Read:
    """Reads the settings as a program that has just started."""

    def read(**variables: str) -> Loaded:
        load._loaded.cache_clear()  # noqa: SLF001 - nothing else does it
        validation._validated.cache_clear()  # noqa: SLF001 - the same
        return load_settings(file, variables, Kept(tmp_path / "state" / "settings.json"))

    return read


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What has been checked, each time."""
    times: list[object] = []
    check = validation.validated

    def counted(*given: object) -> object:
        times.append(given)
        return check(*given)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(validation, "validated", counted)
    return times


def told(loaded: Loaded) -> tuple[object, ...]:
    """Return everything of settings, also what does not count when rules are compared."""
    rules = [*loaded.rules.rules, *(each.rule for each in loaded.promises)]
    return loaded, [(each.note, each.place, each.preset) for each in rules]


def test_what_is_kept_is_what_was_checked(read: Read, checked: list[object], tmp_path: Path) -> None:
    """Equal settings are checked once, and are the same in everything. Nobody else can read the file."""
    first = read()
    assert len(first.rules.rules) > 10
    assert told(read()) == told(first)
    assert len(checked) == 1
    path = tmp_path / "state" / "settings.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {each.name for each in path.parent.iterdir()} == {path.name, "outlines.json"}


@pytest.mark.parametrize("changed", ["clawker-fw.yaml", "team.yaml"])
def test_another_text_is_checked(changed: str, read: Read, checked: list[object], file: Path) -> None:
    """Of the file, and of one that it includes."""
    read()
    path = file.with_name(changed)
    path.write_text(path.read_text().replace("team.test", "other.test").replace("f.test", "z.test"))
    assert {each.destination.name for each in read().rules.rules} & {"other.test", "z.test"}
    assert len(checked) == 2


def test_another_variable_is_checked(read: Read, checked: list[object]) -> None:
    """A variable overrides the file."""
    assert read().settings.otel.infra_port == 4319
    assert read(CLAWKER_FW_OTEL__INFRA_PORT="5000").settings.otel.infra_port == 5000
    assert read().settings.otel.infra_port == 4319
    assert len(checked) == 3


def test_another_release_checks_again(
    read: Read, checked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the code, of a preset or of the list of suffixes counts."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "preset.yaml").write_text("1")
    monkeypatch.setattr(kept, "FOLDERS", (*kept.FOLDERS, code))
    read()
    read()
    assert len(checked) == 1
    (code / "preset.yaml").write_text("22")
    read()
    assert len(checked) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"rules"', '"rule"', 1),
        lambda text: text.replace('"https"', '"gopher"', 1),
        lambda text: text.partition("\n")[0] + "\n[]",
        lambda _: "\0" * 100,
    ],
)
def test_what_is_damaged_is_ignored(
    damage: Callable[[str], str], read: Read, checked: list[object], tmp_path: Path
) -> None:
    """It is checked again, and then kept again."""
    first = read()
    path = tmp_path / "state" / "settings.json"
    path.write_text(damage(path.read_text()))
    assert told(read()) == told(first) == told(read())
    assert len(checked) == 2


def test_wrong_settings_are_never_kept(read: Read, file: Path, tmp_path: Path) -> None:
    """A mistake is told each time, also where the settings before were right."""
    read()
    file.write_text("rules: [{dst: a.test, proto: gopher}]\n")
    for _ in range(2):
        with pytest.raises(Exception, match="gopher"):
            read()
    assert "gopher" not in (tmp_path / "state" / "settings.json").read_text()


def test_where_nothing_can_be_written(read: Read, checked: list[object], tmp_path: Path) -> None:
    """Settings are checked each time."""
    (tmp_path / "state").write_text("no folder")
    assert told(read()) == told(read())
    assert len(checked) == 2


def test_a_look_at_the_same_settings_imports_no_validation(file: Path, tmp_path: Path) -> None:
    """Neither pydantic nor YAML: each command would wait for them."""
    file.write_text("rules: [{dst: a.test}]\n")
    script = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from clawker_fw.settings.kept import Kept\n"
        "from clawker_fw.settings.load import load_settings\n"
        f"load_settings(Path({str(file)!r}), {{}}, Kept(Path({str(tmp_path / 'kept')!r})))\n"
        "print(json.dumps(sorted({each.partition('.')[0] for each in sys.modules})))\n"
    )
    seen = [
        set(json.loads(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout))
        for _ in range(2)
    ]
    assert {"pydantic", "yaml"} <= seen[0]
    assert not {"pydantic", "yaml", "jinja2"} & seen[1]


def test_forgotten(read: Read, checked: list[object], tmp_path: Path) -> None:
    """Nothing is left, and settings are checked again."""
    read()
    Kept(tmp_path / "state" / "settings.json").forget()
    assert not (tmp_path / "state").exists()
    read()
    assert len(checked) == 2
