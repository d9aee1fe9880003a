"""The exit code and JSON output of every command."""

import os
import platform
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import lock
from clawker_fw.stack import labels
from clawker_fw.stack.files import public
from devkit import reference, stacks
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import SETTINGS, Command, join


def hold(memory: MemoryEngine, image: str, **changes: str) -> str:
    """Create the lock of a process on this machine, except for these labels."""
    held_by = dict(lock.holder()) | {f"{labels.PREFIX}lock.{name}": text for name, text in changes.items()}
    everything = labels.ownership_labels("clawker") | held_by
    return memory.create_container(stacks.never_started("clawker-lock", image, everything))


def test_the_lock_of_a_run_that_was_killed_at_its_end_goes(command: Command, memory: MemoryEngine) -> None:
    """A run with nothing to do takes no lock, and removes only the lock of an ended process."""
    command("run")
    image = memory.inside("clawker-envoy").image
    for verb in ("run", "down", "down"):
        hold(memory, image, process="999999999 1")
        assert command(verb).code == 0
        assert memory.container("clawker-lock") is None, verb
    command("run")
    parent = os.getppid()
    hold(memory, image, process=f"{parent} {lock.start_time(parent)}")
    assert command("run").code == 0
    assert memory.container("clawker-lock")


def test_dry_run_only_shows(command: Command, settings_file: Path, memory: MemoryEngine) -> None:
    """`--dry-run` exits with 1 if there are steps, performs none, and says what would be refused."""
    assert "error[not-up]" in command("reload", "--dry-run").err
    assert command.json("run", "--dry-run", code=1)["steps"]
    assert memory.networks() == ()
    assert "run would" in command("run", "--dry-run").out
    command("run")
    assert command("run", "--dry-run").code == 0
    assert command("reload", "--dry-run").code == 0
    files = dict(memory.inside("clawker-envoy").files)
    settings_file.write_text("rules:\n  - dst: b.test\n")
    dry = command("reload", "--dry-run", "--json")
    assert (dry.code, [each["kind"] for each in dry.answer["steps"]]) == (1, ["commit", "commit"])
    assert dict(memory.inside("clawker-envoy").files) == files


def test_status_shows_what_is_left_of_a_rule(command: Command, settings_file: Path) -> None:
    """The rule that expires first comes first; an expired rule is not listed."""
    ends = (datetime.now(UTC) + timedelta(minutes=minutes, seconds=30) for minutes in (90, 5, -10))
    rules = [f"- {{dst: {name}.test, until: {end.isoformat()}}}" for name, end in zip("xyz", ends, strict=True)]
    settings_file.write_text(SETTINGS + "".join(f"  {rule}\n" for rule in rules))
    command("run")
    status = command("status").out
    assert (
        status.index("5 min")
        < status.index(" left of https y.test:443")
        < status.index("1 h 30 min left of https x")
    )
    assert "z.test" not in status
    document = command.json("status")
    assert [each["rule"] for each in document["ending"]] == ["https y.test:443", "https x.test:443"]
    assert document["rules"] == document["live_rules"] == 4


def test_drift_shows_what_differs_in_files(command: Command, settings_file: Path) -> None:
    """Changed rules show the differing values on request; programs show a unified diff."""
    command("run")
    settings_file.write_text(settings_file.read_text().replace("a.test", "b.test"))
    drift = command("drift")
    assert "5 fields differ; --diff shows all by layer.\n" in drift.out
    assert "names.a.test" not in drift.out
    drift = command("drift", "--diff")
    assert drift.code == 1
    assert '\n    - names.a.test: {"at": "envoy"}\n    + names.b.test: {"at": "envoy"}\n' in drift.out
    document = command.json("drift")
    assert any('+  "b.test"' in each.get("diff", "") for each in document["siblings"][1]["findings"])


def test_a_changed_setting_has_its_name(command: Command) -> None:
    """A setting that is a value in a file is named in the reasons and among the differences."""
    command("run")
    drift = command("drift", "--diff", CLAWKER_FW_LIMITS__RESOLVER_CONNECTIONS="64")
    assert "  changed settings: limits.resolver_connections 32 → 64\n" in drift.out
    assert "\n    limits.resolver_connections: 32 → 64\n" in drift.out


DRIFT = "firewall_container_spec_drift"


@pytest.mark.parametrize("verb", ["run", "reload"])
def test_a_replacement_for_drift_is_recorded(verb: str, command: Command) -> None:
    """Each replaced container has one structured record with both values of the three labels."""
    command("run")
    drifted = command("--log-format", "json", verb, CLAWKER_FW_OTEL__INFRA_PORT="4320").records(DRIFT)
    assert sorted(each["container"] for each in drifted) == ["clawker-coredns", "clawker-envoy"]
    assert {each["reason"] for each in drifted} == {f"labels {labels.OTEL_INFRA_PORT}"}
    for each in drifted:
        assert (each["running_otel_infra_port"], each["desired_otel_infra_port"]) == ("4319", "4320")
        assert each["running_infra_certs_ready"] == each["desired_infra_certs_ready"] == "false"
        assert each["running_stack_build_sha"] == each["desired_stack_build_sha"]
    people = command(verb, CLAWKER_FW_OTEL__INFRA_PORT="4322").err
    assert re.search(r"^\d\d:\d\d:\d\d  clawker-envoy has been replaced: ", people, re.MULTILINE)
    assert DRIFT not in people


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda envoy: envoy.files.update({"boot/bootstrap.json": public(b"x")}), "boot boot/bootstrap.json"),
        (lambda envoy: setattr(envoy, "image", "sha256:" + "0" * 64), "image id"),
        (
            lambda envoy: setattr(envoy, "spec", replace(envoy.spec, shape=replace(envoy.spec.shape, user="1"))),
            "shape user",
        ),
        (lambda envoy: setattr(envoy, "silent", "connection refused"), None),
        (lambda envoy: setattr(envoy, "processes", ("7: /bin/sh",)), None),
    ],
)
def test_a_record_is_for_what_a_sibling_is(
    change: Callable[[Any], None], reason: str | None, command: Command, memory: MemoryEngine
) -> None:
    """A record names the differing fields; a container replaced only for its behaviour has none."""
    command("run")
    before = memory.inside("clawker-envoy").id
    change(memory.inside("clawker-envoy"))
    drifted = command("--log-format", "json", "run").records(DRIFT)
    assert [each["reason"] for each in drifted] == ([reason] if reason else [])
    assert memory.inside("clawker-envoy").id != before


def test_a_change_by_somebody_else_is_told(command: Command, memory: MemoryEngine) -> None:
    """A comparison during another run names the lock's holder, unless the holder has ended."""
    command("run")
    assert command.json("drift")["busy"] is None
    assert "Busy" not in command("drift").out
    image = memory.inside("clawker-envoy").image
    parent = os.getppid()
    held = hold(memory, image, process=f"{parent} {lock.start_time(parent)}", command="clawker-fw run \x1b[31m")
    mine = lock.holder()
    for verb in ("drift", "status"):
        busy = command.json(verb)["busy"]
        assert busy == {
            "host": platform.node(),
            "user": mine[f"{labels.PREFIX}lock.user"],
            "process": str(parent),
            "since": busy["since"],
            "command": "clawker-fw run \x1b[31m",
        }
        output = command(verb).out
        assert "Busy: clawker-fw run \\x1b[31m has been changing this stack since 20" in output
        assert f"process {parent}" in output
    memory.remove(held)
    hold(memory, image, process="999999999 1")
    assert command.json("drift")["busy"] is None


def test_down_says_what_it_leaves_and_takes_it_with_all(command: Command, memory: MemoryEngine) -> None:
    """Unused images are removed, except those of other stacks."""
    command("run")
    command("--project", "other", "run")
    ours = {memory.inside(f"clawker-{sibling}").spec.image for sibling in Sibling}

    down = command.json("down")
    assert [name.partition(":")[0] for name in down["left"]["images"]] == ["clawker-fw/lock"]
    output = command("--project", "other", "down").out
    assert output.startswith("other is down.\n")
    for name in ours:
        assert f"Kept for the next run: image {name}\n" in output
    assert "`clawker-fw --project other down --all` removes these as well." in output

    command("--project", "other", "run")
    clean = command.json("down", "--all")
    assert clean["left"] == {"images": []}
    assert [step["image"].partition(":")[0] for step in clean["steps"]] == ["clawker-fw/lock"]
    assert {memory.inside(f"other-{sibling}").spec.image for sibling in Sibling} == ours
    assert command("--project", "other", "drift").code == 0

    assert "Left" not in command("--project", "other", "down", "--all").out
    assert memory.own_images() == ()
    assert command("run").code == 0


def test_down_leaves_agents_alone_unless_forced(command: Command, memory: MemoryEngine) -> None:
    """With agents attached, `down` refuses; with `--force`, it disconnects them first."""
    command("run")
    join(memory, "agent")
    assert command.json("status")["agent"]["attached"] == ["agent"]
    refused = command("down")
    assert refused.code == 6
    assert "agent on clawker-net" in refused.err
    assert command("down", "--force").code == 0
    assert memory.networks() == ()
    assert memory.inside("agent").status == "running"


def test_options_are_variables_too(command: Command, memory: MemoryEngine) -> None:
    """Each global option has an environment variable."""
    assert command("run", CLAWKER_FW_PROJECT="other", CLAWKER_FW_LOG_FORMAT="json", CLAWKER_FW_DEBUG="0").records()
    assert memory.inside("other-envoy")
    assert command("status", CLAWKER_FW_PROJECT="other", CLAWKER_FW_FORMAT="json").json["project"] == "other"
    assert command("status", CLAWKER_FW_CONFIG="nope.yaml").code == 3


def test_init_writes_settings_that_can_be_used(command: Command, settings_file: Path) -> None:
    """The written settings deny everything except presets, are not overwritten, and accept pasted rules."""
    settings_file.unlink()
    assert command("init").code == 0
    assert command("init").code == 6
    assert command("init", "--force").code == 0
    assert command("run").code == 0
    assert command.json("status")["rules"] == 0
    assert "did you mean `pip`?" in command("init", "--force", "--preset", "pipp").said
    assert (
        "with presets claude-code, pip."
        in command("init", "--force", "--preset", "claude-code", "--preset", "pip").out
    )
    pasted = "rules:\n  - dst: api.example.com        # exactly this host\n  - dst: .example.org\n"
    settings_file.write_text(settings_file.read_text().replace("rules:\n", pasted))
    listed = command.json("rules", "list")["rules"]
    assert {".example.org", "api.anthropic.com", "pypi.org"} < {each["dst"] for each in listed}


def test_version(command: Command) -> None:
    """The version goes to standard output, with the beginning of the build SHA in the containers' labels."""
    outcome = command("--version")
    assert outcome.code == 0
    build = stacks.installed_release().build_sha
    assert outcome.out == f"clawker-fw {version('clawker-fw')} ({build[:7]})\n"
    assert command("status", CLAWKER_FW_VERSION="0.1.0").code == 0, "a script names what it installs like this"


def test_every_answer_in_json_has_a_schema(command: Command) -> None:
    """`schema` lists the commands with a schema, and prints it without settings."""
    formats = {
        verb
        for verb, each in reference.commands().items()
        for option in reference.options_of(each)
        if "--format" in option.opts
    }
    listed = command("schema").out.splitlines()
    assert {*listed} == {*formats, "status --all", "rules suggest --write", "groups", "error"}
    for verb in formats | {"status --all"}:
        shown = command("--config", "none.yaml", "schema", *verb.split()).json
        assert shown["title"] == f"The answer of `clawker-fw {verb}` with `--format json`"
        assert shown["properties"]["schema"]["const"] == 1
    assert "rules has no answer in JSON" in command("schema", "rules").err


@pytest.mark.parametrize("name", [*reference.commands(), *reference.groups()])
def test_help_is_whole_at_80_columns(name: str, command: Command) -> None:
    """No line is wider, no sentence is cut, and every command has an example."""
    commands = reference.commands()
    named = commands[name] if name in commands else reference.groups()[name]
    out = command(*name.split(), "--help", COLUMNS="80").out
    assert "Example:" in out or name not in commands
    assert all(len(line) <= 80 for line in out.splitlines())
    said = "".join(out.split())
    for words in (named.help, *(each.help for each in reference.options_of(named))):
        assert "".join((words or "").split()) in said
    for argument in reference.arguments_of(named):
        assert "".join(f"{argument.metavar}{argument.help}".split()) in said
    for verb, each in getattr(named, "commands", {}).items():
        sentence = " ".join((each.help or "").split()).partition(". ")[0].removesuffix(".")
        assert any(line.split() == [verb, *f"{sentence}.".split()] for line in out.splitlines()), sentence
