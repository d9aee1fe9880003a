"""What a swarm gets to keep every node current: the compose file, the files of nodes, what is refused."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from clawker_fw.fleet import host_files
from clawker_fw.fleet.program.image import Distribution
from clawker_fw.stack.release import Release
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command

IMAGE = f"registry.test/clawker-fw@sha256:{'a' * 64}"
INJECTING = """
rules:
  - {dst: api.test, path_rules: [{path: /v1}], inject: token}
"""


def printed(command: Command, *options: str, **variables: str) -> Any:  # noqa: ANN401 - YAML
    """Return the compose file."""
    outcome = command("fleet", "stack", "--image", IMAGE, *options, **variables)
    assert outcome.code == 0, outcome.err
    return yaml.safe_load(outcome.out)


def targets(document: Any, kind: str = "configs") -> dict[str, str]:  # noqa: ANN401 - YAML
    """Return where nodes have files, and which file here each of them is."""
    mounted = document["services"]["watch"].get(kind, ())
    return {each["target"]: document[kind][each["source"]]["file"] for each in mounted}


def test_the_same_settings_give_the_same_text(command: Command) -> None:
    """Nothing in it depends on when it is printed; a change of a rule changes a name, and the label about it."""
    first, second = (command("fleet", "stack", "--image", IMAGE).out for _ in range(2))
    assert first == second
    config = Path("clawker-fw.yaml")
    config.write_text(config.read_text() + "  - dst: more.test\n")
    changed = command("fleet", "stack", "--image", IMAGE).out
    before, now = (set(text.splitlines()) for text in (first, changed))
    assert all("clawker-settings-" in line or "dev.clawker.watcher.settings" in line for line in before ^ now)
    digest = hashlib.sha256(config.read_bytes()).hexdigest()[:16]
    assert yaml.safe_load(changed)["configs"].keys() == {f"clawker-settings-{digest}"}


def test_a_node_watches_as_is_asked_here(command: Command) -> None:
    """The options of the command are those of each node's watcher; variables that are settings go with it."""
    document = printed(
        command,
        *("--label", "pool=agents", "--parallelism", "2", "--monitor", "90s", "--interval", "1m"),
        *("--on-open", "stop", "--agents", "judge", "--socket", "/run/docker.sock", "--start-period", "1500ms"),
        CLAWKER_FW_DRAIN_TIMEOUT="5s",
        CLAWKER_FW_RULES='[{"dst": "$b.test"}]'.replace("$", ""),
    )
    watch = document["services"]["watch"]
    assert watch["image"] == IMAGE
    assert watch["command"][:3] == ["watch", "--heal", "all"]
    assert watch["command"][-4:] == ["--interval", "60s", "--on-open", "stop"]
    assert watch["environment"]["CLAWKER_FW_DRAIN_TIMEOUT"] == "5s"
    assert watch["environment"]["CLAWKER_FW_HOST"] == "unix:///run/docker.sock"
    assert {"type": "bind", "source": "/run/docker.sock", "target": "/run/docker.sock"} in watch["volumes"]
    assert watch["healthcheck"]["test"][-2:] == ["--agents", "judge"]
    assert watch["healthcheck"]["start_period"] == "1500ms"
    deploy = watch["deploy"]
    assert deploy["placement"]["constraints"] == ["node.platform.os == linux", "node.labels.pool == agents"]
    assert deploy["update_config"] == {
        "parallelism": 2,
        "delay": "90s",
        "monitor": "90s",
        "max_failure_ratio": 0,
        "order": "stop-first",
        "failure_action": "rollback",
    }


def test_a_dollar_is_no_variable_of_compose(command: Command) -> None:
    """What a setting says arrives as it is: the docker CLI would replace a single dollar."""
    document = printed(command, CLAWKER_FW_OTEL__CERTS_DIR="certs$HOME")
    assert document["services"]["watch"]["environment"]["CLAWKER_FW_OTEL__CERTS_DIR"] == "certs$$HOME"


def test_included_files_are_where_they_are_named(command: Command, settings_file: Path, tmp_path: Path) -> None:
    """A path up or down from the settings file leads to the same file on a node, and so does an absolute one."""
    inner = tmp_path / "project"
    inner.mkdir()
    (tmp_path / "rules").mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "absolute.yaml").write_text("rules: [{dst: far.test}]\n")
    (tmp_path / "rules" / "team.yaml").write_text("include: [deep.yaml]\nrules: [{dst: team.test}]\n")
    (tmp_path / "rules" / "deep.yaml").write_text("rules: [{dst: deep.test}]\n")
    settings_file.unlink()
    own = inner / "fw.yaml"
    own.write_text(f"include: [../rules/team.yaml, {tmp_path}/far/absolute.yaml]\nrules: []\n")
    outcome = command("--config", str(own), "fleet", "stack", "--image", IMAGE)
    assert outcome.code == 0, outcome.err
    document = yaml.safe_load(outcome.out)
    assert (
        document["services"]["watch"]["environment"]["CLAWKER_FW_CONFIG"]
        == "/etc/clawker-fw/above/clawker-fw.yaml"
    )
    found = {target: Path(file).resolve() for target, file in targets(document).items()}
    assert found == {
        "/etc/clawker-fw/above/clawker-fw.yaml": own,
        "/etc/clawker-fw/rules/team.yaml": tmp_path / "rules" / "team.yaml",
        "/etc/clawker-fw/rules/deep.yaml": tmp_path / "rules" / "deep.yaml",
        f"{tmp_path}/far/absolute.yaml": tmp_path / "far" / "absolute.yaml",
    }


def _declare(folder: Path, source: str) -> Path:
    declared = folder / "secrets.yaml"
    declared.write_text(
        f"secrets:\n  token: {{from: {source}, hosts: [api.test]}}\n"
        "  other: {from: {env: X}, hosts: [b.test]}\n"
    )
    declared.chmod(0o600)
    return declared


def test_secrets_are_secrets_of_the_swarm(command: Command, settings_file: Path, tmp_path: Path) -> None:
    """The file that declares them and those that rules want, by names that no plain digest would give."""
    settings_file.write_text(INJECTING)
    (tmp_path / "token").write_text("sesame\n")
    declared = _declare(tmp_path, "{file: token}")
    outcome = command("--secrets", str(declared), "fleet", "stack", "--image", IMAGE)
    assert outcome.code == 0, outcome.err
    assert "sesame" not in outcome.out
    document = yaml.safe_load(outcome.out)
    assert targets(document, "secrets") == {
        "/run/secrets/clawker-fw/secrets.yaml": str(declared),
        "/run/secrets/clawker-fw/token": str(tmp_path / "token"),
    }
    assert {each["mode"] for each in document["services"]["watch"]["secrets"]} == {0o400}
    assert (
        document["services"]["watch"]["environment"]["CLAWKER_FW_SECRETS"]
        == "/run/secrets/clawker-fw/secrets.yaml"
    )
    for kind in ("sha1", "sha256", "sha512", "blake2b", "md5"):
        for text in (b"sesame", b"sesame\n"):
            assert hashlib.new(kind, text).hexdigest()[:16] not in outcome.out
    names = set(document["secrets"])
    (tmp_path / "token").write_text("other\n")
    again = yaml.safe_load(command("--secrets", str(declared), "fleet", "stack", "--image", IMAGE).out)
    assert len(names & set(again["secrets"])) == 1


@pytest.mark.parametrize("source", ["{env: TOKEN}", "{command: [cat, token]}"])
def test_secrets_that_other_hosts_do_not_have(
    source: str, command: Command, settings_file: Path, tmp_path: Path
) -> None:
    """A variable or a program of this machine can't be given to a node, and the hint says what can."""
    settings_file.write_text(INJECTING)
    declared = _declare(tmp_path, source)
    outcome = command("--secrets", str(declared), "fleet", "stack", "--image", IMAGE)
    assert outcome.code == 6
    assert "error[fleet-secret-local]" in outcome.err
    assert "from: {file: PATH}" in outcome.err
    assert not outcome.out


def test_certificates_go_to_every_node(command: Command, settings_file: Path, tmp_path: Path) -> None:
    """Those of a user's own folder: keys as secrets, all beside the settings as here."""
    certs = tmp_path / "certs"
    certs.mkdir()
    for name in ("ca.crt", "ca.key", "notes.txt"):
        (certs / name).write_text(name)
    settings_file.write_text("rules: []\notel: {endpoint: 'collector.test:4317', certs_dir: certs}\n")
    document = printed(command)
    assert targets(document).keys() == {"/etc/clawker-fw/clawker-fw.yaml", "/etc/clawker-fw/certs/ca.crt"}
    assert targets(document, "secrets").keys() == {"/etc/clawker-fw/certs/ca.key"}


def test_settings_without_a_file(command: Command, settings_file: Path) -> None:
    """What a variable names by a relative path is where the watcher's working folder is."""
    settings_file.unlink()
    (settings_file.parent / "ca.pem").write_text("no certificates are read here")
    document = printed(command, CLAWKER_FW_RULES="[]", CLAWKER_FW_INSPECTION__CA_FILE="ca.pem")
    assert targets(document).keys() == {"/ca.pem"}
    assert "CLAWKER_FW_CONFIG" not in document["services"]["watch"]["environment"]
    document = printed(command, CLAWKER_FW_SETTINGS="rules: []\ninspection: {ca_file: ca.pem}")
    assert targets(document).keys() == {"/ca.pem"}
    assert document["services"]["watch"]["environment"]["CLAWKER_FW_SETTINGS"].startswith("rules: []")


@pytest.mark.parametrize(
    ("settings", "code", "error"),
    [
        ("rules: []\ninspection: {ca_file: ca.pem}\n", 6, "fleet-key-exposed"),
        ("rules: []\ninspection: {ca_file: ~/ca.pem}\n", 3, "fleet-path-local"),
        ("rules: []\ninspection: {ca_file: missing.pem}\n", 3, "settings-unreadable"),
        (f"# {'x' * (1000 << 10)}\nrules: []\n", 6, "fleet-file-too-large"),
    ],
)
def test_files_that_can_not_be_given_away(
    settings: str, code: int, error: str, command: Command, settings_file: Path
) -> None:
    """A key among certificates, a user's home, a file that is not there, and one that a swarm has no room for."""
    settings_file.with_name("ca.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    settings_file.write_text(settings)
    outcome = command("fleet", "stack", "--image", IMAGE)
    assert (outcome.code, f"error[{error}]" in outcome.err) == (code, True), outcome.err


def test_templates_of_a_swarm_are_refused(command: Command) -> None:
    """A variable that the swarm would fill in is not passed on."""
    outcome = command("fleet", "stack", "--image", IMAGE, CLAWKER_FW_OTEL__CERTS_DIR="certs{{.Node.ID}}")
    assert outcome.code == 3
    assert "error[fleet-variable-template]" in outcome.err


@pytest.mark.parametrize(
    "options",
    [
        ("--image", "clawker-fw:latest"),
        ("--image", "clawker-fw"),
        ("--image", IMAGE, "--label", "pool"),
        ("--image", IMAGE, "--label", "a b=c"),
        ("--image", IMAGE, "--parallelism", "0"),
        ("--image", IMAGE, "--monitor", "soon"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], command: Command) -> None:
    """An image that is not pinned, a label without a value, nobody at a time, and no duration: exit code 2."""
    outcome = command("fleet", "stack", *options)
    assert outcome.code == 2
    assert not outcome.out


def test_the_image_of_this_release_has_to_be_there(command: Command, memory: MemoryEngine) -> None:
    """Nodes find it by the id that the engine gave it, and are never sent to a public registry for its name."""
    outcome = command("fleet", "stack")
    assert outcome.code == 6
    assert "error[fleet-image-missing]" in outcome.err
    assert "clawker-fw image --load" in outcome.err
    made = Distribution(Release.installed()).image
    memory.load_image(made.archive(), made.archive_size, lambda _: None)
    found = memory.image(made.reference)
    assert found
    outcome = command("fleet", "stack")
    watch = yaml.safe_load(outcome.out)["services"]["watch"]
    assert watch["image"] == found.id
    assert any(each.startswith("node.platform.arch == ") for each in watch["deploy"]["placement"]["constraints"])


def test_a_folder_to_deploy_from(command: Command, settings_file: Path, tmp_path: Path) -> None:
    """With `--output`, it is in a folder with copies of the files that it names, and nothing of this machine."""
    outcome = command("fleet", "stack", "--image", IMAGE, "--output", "out")
    assert outcome.code == 0
    assert "docker stack deploy -c out/stack.yaml" in outcome.out
    document = yaml.safe_load((tmp_path / "out" / "stack.yaml").read_text())
    (name,) = document["configs"]
    assert document["configs"][name]["file"] == f"./{name}"
    assert (tmp_path / "out" / name).read_bytes() == settings_file.read_bytes()
    assert str(tmp_path) not in (tmp_path / "out" / "stack.yaml").read_text()
    (tmp_path / "taken").write_text("")
    outcome = command("fleet", "stack", "--image", IMAGE, "--output", "taken/out")
    assert outcome.code == 6
    assert "error[fleet-unwritable]" in outcome.err


def test_a_secret_s_name_says_which_project(tmp_path: Path) -> None:
    """The same secret has another name in another project, so that names can't be looked up."""
    path = tmp_path / "token"
    file = host_files.HostFile("secret-token", host_files.SECRETS, path, b"sesame", secret=True)
    assert file.name("a") == file.name("a") != file.name("b")
    assert "sesame" not in repr(file)
