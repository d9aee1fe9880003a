"""Settings: sources, and the error for each mistake."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from clawker_fw.errors import RefusedError, SettingsError
from clawker_fw.rules.ruleset import MOST_PORTS
from clawker_fw.rules.schema import FIELDS
from clawker_fw.settings.example import example, write_example
from clawker_fw.settings.find import FILE_NAME, find, project_of
from clawker_fw.settings.model import Settings
from clawker_fw.settings.validation import load_settings
from clawker_fw.settings.yaml_mistakes import KEPT

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a settings file into an empty folder, which becomes the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_config_path", lambda _: tmp_path / "home")

    def written(text: str) -> Path:
        path = tmp_path / "clawker-fw.yaml"
        path.write_text(text)
        return path

    return written


def refused(path: Path | None, **environment: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environment)
    return caught.value


@pytest.mark.parametrize("text", ["", "rules:\n", "drain_timeout: 5s\n"])
def test_a_file_without_rules_is_not_no_rules(text: str, write: Write) -> None:
    """An empty file may still be being written, so it is an error that says how to deny everything."""
    error = refused(write(text))
    assert "`rules` is missing" in error.message
    assert str(write(text)) in error.message
    assert "`rules: []`" in error.hint
    assert load_settings(write(text.replace("rules:", "#") + "\nrules: []\n"), {}).rules.rules == ()


def test_the_example_is_the_defaults(write: Write) -> None:
    """The file that `init` writes equals the defaults."""
    assert as_written(write(example())) == Settings(rules=())


def test_another_drain_timeout_leaves_the_settings_the_same(write: Write) -> None:
    """`drain_timeout` does not change the settings' digest, so a watcher accepts such a run; other settings do."""
    path = write("rules: [{dst: a.test}]\n")
    one, other, third = (
        load_settings(path, variables).digest
        for variables in ({}, {"CLAWKER_FW_DRAIN_TIMEOUT": "1s"}, {"CLAWKER_FW_LIMITS__IDLE": "1m"})
    )
    assert one == other != third


def as_written(path: Path) -> Settings:
    """Return the settings of a file as written."""
    return load_settings(path, {}).settings


LINES = example().splitlines()


@pytest.mark.parametrize("number", [at for at, line in enumerate(LINES) if re.match(r"\s*#[^ ]", line)])
def test_each_line_of_the_example_can_be_uncommented(number: int, write: Write) -> None:
    """Each commented setting is valid alone and differs from its default."""
    lines = [*LINES[:number], re.sub(r"#(?! )", "", LINES[number], count=1), *LINES[number + 1 :]]
    path = write("\n".join(lines))
    path.with_name("team.yaml").write_text("rules: [{dst: team.test}]")
    assert as_written(path) != Settings(rules=())


def test_the_environment_comes_before_the_file(write: Write) -> None:
    """A variable overrides only its own key."""
    path = write("otel:\n  infra_port: 1\nrules:\n  - dst: a.test\n")
    loaded = load_settings(path, {"CLAWKER_FW_OTEL__INFRA_PORT": "2", "CLAWKER_FW_DRAIN_TIMEOUT": "1m"})
    assert loaded.settings.otel.infra_port == 2
    assert loaded.settings.drain_timeout == 60
    assert len(loaded.rules.rules) == 1


MEMORY, IDLE, DRAIN = "resources: {envoy: {memory: %s}}", "limits: {idle: %s}", "drain_timeout: %s"


@pytest.mark.parametrize(
    ("setting", "text", "amount"),
    [
        (MEMORY, "2GiB", 2 << 30),
        (MEMORY, "1.5 GiB", 3 << 29),
        (MEMORY, "512MiB", 512 << 20),
        (MEMORY, "536870912", 512 << 20),
        *((MEMORY, text, None) for text in ("2GB", "2g", "1.5", "true", "-1GiB", "63MiB", "2000GiB")),
        (IDLE, "1.5h", 5400),
        *((IDLE, text, None) for text in ("9", "25h")),  # without a bound, dead connections would stay
        (DRAIN, "500ms", 0.5),
        (DRAIN, "0", 0),
    ],
)
def test_amounts(setting: str, text: str, amount: float | None, write: Write) -> None:
    """Amounts are numbers with or without a unit; ambiguous or absurd ones are refused."""
    path = write(f"rules: []\n{setting % text}\n")
    if amount is None:
        assert "line 2" in refused(path).message
        return
    found = load_settings(path, {}).settings
    assert amount in {found.resources.envoy.memory, found.limits.idle, found.drain_timeout}


def test_no_file_at_all_is_not_no_rules(write: Write) -> None:
    """Missing settings are an error, so that a `run` in the wrong folder does not remove all rules."""
    write("").unlink()
    error = refused(None)
    assert error.code == "settings-not-found"
    assert "init" in error.hint


def test_what_cannot_be_read_is_not_empty(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and binary files are errors; if the file's existence is unknown, no other file is used."""
    write("")
    assert refused(tmp_path).code == "settings-unreadable"
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00rules")
    error = refused(tmp_path / "binary.yaml")
    assert error.code == "settings-unreadable"
    assert error.hint == "It has to be a file in UTF-8 that the user of this command may read."

    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert find(None)[0] == Path(FILE_NAME)


ODD = ("0443", "1:30", "0x1bb", "0b11")
"""Ports that YAML 1.1 or 1.2 reads as other numbers than people do."""


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("rules:\n  - dst: a.test\n  - dst: http://b.test\n", 3, "has a scheme"),
        ("rules:\n  - proto: http\n", 2, "`rules.dst` is missing"),
        ("rules:\n  - dst: no\n", 2, "is False, not text"),
        ("rules:\n  - dst: !env HOST\n", 2, "'HOST' is not a value"),
        ("drain_timeout: 2020-99-99\n", 1, "'2020-99-99' is not a value"),
        ("rules:\n  - a.test\n", 2, "write `dst: a.test`"),
        ("rules: a.test\n", 1, "`rules` must be a list"),
        ("rules:\n  - {dst: a.test, port: 0}\n", 2, "0 is not a port"),
        ("rules:\n  - {dst: a.test, allow_private: 'yes'}\n", 2, "valid boolean"),
        ("network:\n  subnet: 10.0.0.1/20\n", 2, "host bits set"),
        ("network:\n  subnet: 10.0.0.0/26\n", 2, "/8 to /25"),
        ("limits:\n  queries_per_second: 100001\n", 2, "less than or equal to 100000"),
        ("images:\n  envoy: envoyproxy/envoy:latest\n", 2, "is not pinned by digest"),
        ("otel:\n  infra_port: 70000\n", 2, "less than or equal to 65535"),
        ("otel:\n  endpoint: collector.test\n", 2, "write HOST:PORT"),
        ("otel:\n  server_name: a b\n", 2, "is not a host name"),
        ("inspection:\n  ca_file: ''\n", 2, "at least 1 character"),
        ("drain_timeout: 999h\n", 1, "less than or equal to 86400"),
        ("drain_timeout: true\n", 1, "not a duration"),
        ("a: [\n", 2, "is not YAML: a bracket is not closed"),
        ("rules:\n- dst: *.a.test\n", 2, "is not YAML: `*` begins a YAML alias"),
        ("rules:\n- dst: *a\n", 2, "is not YAML: `*` begins a YAML alias"),
        ("rules:\n\t- dst: a.test\n", 2, "is not YAML: a tab indents it"),
        ("rules:\n- dst: a.test\n  \tport: 80\n", 3, "is not YAML: a tab indents it"),
        ("rules:\n- dst: a.test\n  port: [80, 81\n- dst: b.test\n", 3, "is not YAML: `[` is not closed"),
        ("rules:\n- {dst: a.test\n- dst: b.test\n", 2, "is not YAML: `{` is not closed"),
        ('rules:\n- dst: "a.test\n- dst: b.test\n', 2, "is not YAML: a quote is not closed"),
        ('rules:\n- dst: "a.test\n- dst: "b.test"\n', 3, "a quote is not closed, here or further up"),
        ("rules:\n- dst: a.test\n    port: 80\n", 3, "is not YAML: its indentation does not fit"),
        ("rules:\n  - dst: a.test\n   port: 80\n", 3, "is not YAML: its indentation does not fit"),
        ("rules:\n  - dst: a.test\n - dst: b.test\n", 3, "is not YAML: its indentation does not fit"),
        ("rules:\n- dst:a.test\n  port: 80\n", 2, "is not YAML: a colon has no space after it"),
        ("rules: []\nproject:x\n", 2, "is not YAML: a colon has no space after it"),
        ("rules:\n- dst:a.test\n", 2, "a rule is a mapping; write `dst: a.test`"),
        ("rules:\n  -dst: a.test\n  - dst: b.test\n", 2, "is not YAML: a dash has no space after it"),
        ("rules:\n- dst: a.test\n  note: see: this\n", 3, "is not YAML: it has two colons"),
        ("rules:\n- dst: @a\n", 2, "is not YAML: no text begins with `@`"),
        ("rules:\n- dst: a.test\n  port\n  note: x\n", 3, "is not YAML: a key has no colon"),
        ("rules: []\n---\nrules: []\n", 2, "is not YAML: a second document begins"),
        pytest.param("rules:\n- dst: a.test\n- dst: 'b\0'\n", 3, "is not YAML: it has U+0000,", id="null"),
        ("drain_timeout: 1\ndrain_timeout: 2\n", 2, "`drain_timeout` appears twice, first in line 1"),
        ("rules:\n  - &x {dst: a.test}\n  - *x\n", 2, "aliases"),
        ("- a.test\n", 1, "expected `setting: value` pairs"),
        ('rules:\n- {dst: a.test, port: !!int ""}\n', 2, "not a value that YAML settings can have"),
        pytest.param(f"otel:\n  sample: 1{':1' * 200}.5\n", 2, "is not a plain number", id="a huge number"),
        *((f"rules:\n- {{dst: a.test, port: {port}}}\n", 2, f"{port} is not a plain number") for port in ODD),
        ("limits:\n  queries_per_second: 0100\n", 2, "is not a plain number"),
        *(
            (f"rules:\n- dst: a.test\n  {key}:\n    #- x\n", 3, f"`{key}` has no value")
            for key in FIELDS
            if key != "dst"
        ),
        ("rules:\n- dst: a.test\n  path_rules:\n  - path: /\n    methods:\n", 5, "`methods` has no value"),
        ("rules:\n- dst: a.test\n  inject: {secret: s, as: }\n", 3, "`as` has no value"),
        ("rules: []\nnever:\n- dst: a.test\n  port:\n", 4, "`port` has no value"),
        ("rules: []\nalways: [{dst: a.test, proto: }]\n", 2, "`proto` has no value"),
        ("rules:\n- {dst: a.test, inspect: true, path_rules: []}\n", 2, "`path_rules` is empty"),
        ("rules:\n- {dst: a.test, inspect: true, git: {}}\n", 2, "`git` is empty"),
        (
            "rules:\n- dst: a.test\n  path_rules:\n  - {path: /, methods: []}\n",
            4,
            "`methods` is empty",
        ),
        pytest.param(f"rules:\n- {'[' * 900}{']' * 900}\n", 2, "nested too deeply", id="deep"),
    ],
)
def test_each_mistake_is_told_with_its_line(text: str, line: int, complaint: str, write: Write) -> None:
    """The error is one sentence with the place and the mistake."""
    error = refused(write(text))
    assert complaint in error.message
    assert f"line {line}" in error.message
    assert error.exit_code == 3
    assert "is not YAML: it has" in error.message or "not YAML" not in error.message or KEPT in error.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("otel:\n  infra_prot: 1\n", "Did you mean `infra_port`?"),
        ("rules:\n  - {dst: a.test, alow_private: true}\n", "Did you mean `allow_private`?"),
        ("zzz: 1\n", "Valid are:"),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, hint: str, write: Write) -> None:
    """A mistyped key is an error that suggests the right one."""
    error = refused(write(text))
    assert "is not a setting" in error.message
    assert hint in error.hint


def test_an_unknown_variable_names_the_nearest(write: Write) -> None:
    """A mistyped variable is an error with a suggestion, or with a list of the valid ones."""
    error = refused(write(""), CLAWKER_FW_OTEL__INFRA_PROT="1")
    assert "CLAWKER_FW_OTEL__INFRA_PROT" in error.message
    assert error.hint == "Did you mean `CLAWKER_FW_OTEL__INFRA_PORT`?"

    _, _, valid = refused(write(""), CLAWKER_FW_ZZZZ="1").hint.rstrip(".").partition(": ")
    names = valid.split(", ")
    assert names == sorted(set(names))
    assert "CLAWKER_FW_PROJECT" in names
    assert "CLAWKER_FW_VERSION" not in names

    error = refused(write(""), CLAWKER_FW_OTEL__INFRA_PORT="seven")
    assert error.message.startswith("CLAWKER_FW_OTEL__INFRA_PORT")


def test_more_ports_than_a_stack_can_have_are_an_error(write: Write) -> None:
    """Limits are checked when rules are read; the highest allowed number passes."""
    ports = range(1000, 1000 + MOST_PORTS - 2)
    entries = [f"  - {{dst: a.test, port: {port}}}" for port in ports]
    assert len(load_settings(write("\n".join(["rules:", *entries])), {}).rules.ports) == MOST_PORTS
    error = refused(write("\n".join(["rules:", *entries, "  - {dst: a.test, port: 999}"])))
    assert (error.code, error.exit_code) == ("rules-too-many", 3)
    assert "1,001 ports; at most 1,000 are supported" in error.message


def test_init_where_the_user_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint says what must be writable."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SettingsError, match="Permission denied") as caught:
        write_example(tmp_path / "clawker-fw.yaml", overwrite=False)
    assert caught.value.code == "settings-unwritable"
    assert "must be able to write the file and its folder" in caught.value.hint


@pytest.mark.parametrize(
    "begins", ["\ufeff", "\ufeff# settings\n", ""], ids=["mark", "mark and comment", "no mark"]
)
def test_a_byte_order_mark_is_not_a_part_of_the_text(begins: str, tmp_path: Path) -> None:
    """A byte order mark from an editor on Windows is ignored."""
    text = f"{begins}project: demo\nrules: []\n"
    (tmp_path / "settings.yaml").write_text(text, encoding="utf-8")
    assert project_of(tmp_path / "settings.yaml") == "demo"
    assert load_settings(tmp_path / "settings.yaml", {}).settings.project == "demo"


@pytest.mark.parametrize(
    ("text", "project"),
    [
        ('{"project": "other", "rules": []}', "other"),
        ('"project": other\nrules: []\n', "other"),
        ("{rules: [], project: other}", "other"),
        ("rules: []\n? project\n: other\n", "other"),
        ("note: |\n  text\nproject:   'other'  # mine\n", "other"),
        ("rules: [{dst: a.test, until: }]\nproject: other\n", "other"),
        ("note: |\n  x\n\n  project: text\n", "clawker"),
        ("project:\n", "clawker"),
        ("", "clawker"),
    ],
)
def test_the_project_is_what_yaml_says(text: str, project: str, tmp_path: Path) -> None:
    """The project's name is read as YAML, so that `down` removes the same stack that `run` created."""
    (tmp_path / "settings.yaml").write_text(text)
    assert project_of(tmp_path / "settings.yaml") == project


@pytest.mark.parametrize(
    "text", ["project: [", "project: {a: b}", "project: a\nproject: b", "project: A b", "project: 'x\n", "\x00"]
)
def test_a_project_that_can_not_be_read_is_an_error(text: str, tmp_path: Path) -> None:
    """An unreadable project name is an error; the default is not used instead."""
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(SettingsError):
        project_of(tmp_path / "settings.yaml")


def test_init_replaces_neither_links_nor_devices(tmp_path: Path) -> None:
    """`init` writes through a link, and refuses pipes and devices even when overwriting."""
    link, target, pipe = tmp_path / "link.yaml", tmp_path / "target.yaml", tmp_path / "pipe"
    target.write_text("rules: []\n")
    link.symlink_to(target)
    write_example(link, overwrite=True)
    assert (link.is_symlink(), target.read_text()) == (True, example())
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        with pytest.raises(RefusedError, match="already exists"):
            write_example(path, overwrite=True)
        assert not path.is_file()
