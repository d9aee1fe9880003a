"""The documented recipes, followed literally with real clients and servers."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devkit.clients.site import Site, Surroundings, site
from devkit.stacks import CHECKOUT, environment

SHARERS = 100  # as in `test_clients.py`
PAGES = ("claude-code", "compose", "devcontainer", "ci")
ALLOWED, REFUSED = "https://api.example.com/hello", "https://elsewhere.example.com/hello"
ASK = f"curl -sS {ALLOWED}; curl -sS {REFUSED} || echo refused"
"""What an agent with one of two names allowed does."""

PROGRAMS = {
    "clawker-fw": f'exec {shlex.quote(sys.executable)} -m clawker_fw "$@"',
    "docker": """if [ "$1" != compose ]; then exec "$DOCKER" "$@"; fi
shift
set -- "$IMAGE" docker-compose "$@"
exec "$DOCKER" run --rm -v "${DOCKER_HOST#unix://}:/run/docker.sock" -v "$PWD:$PWD" -w "$PWD" "$@"
""",
}
"""Programs on the reader's machine. Compose comes from the image with all clients."""


def blocks(section: str, language: str) -> list[str]:
    """Return the code blocks of a language below a heading."""
    pages = "".join((CHECKOUT / "docs" / f"{page}.md").read_text("utf-8") for page in PAGES)
    (text,) = re.findall(rf"^##? {section}\n(.*?)(?=^##? [A-Z]|\Z)", pages, re.DOTALL | re.MULTILINE)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def typed(section: str) -> str:
    """Return the commands that a reader of a section types, as a script."""
    return "\n".join(
        line.removeprefix("$ ") for block in blocks(section, "console") for line in block.splitlines() if line
    )


@dataclass(frozen=True)
class Desk:
    """A reader's workplace: a folder, a shell, and an engine with a simulated internet."""

    site: Site
    folder: Path
    authority: Path

    def do(self, script: str, **variables: str) -> str:
        """Run commands, which must succeed, and return their output."""
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=self.folder,
            env=environment(
                **{"DOCKER_HOST": self.site.engine.host, "IMAGE": self.site.image, **variables},
                PATH=f"{self.folder / 'bin'}:{os.environ['PATH']}",
                DOCKER=_docker(),
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def follow(self, section: str, **variables: str) -> str:
        """Write the first settings file of a section, and run its commands."""
        (self.folder / "clawker-fw.yaml").write_text(blocks(section, "yaml")[0])
        return self.do(typed(section).replace("IMAGE", '"$IMAGE" sh -euc "$SCRIPT"'), **variables)

    def write(self, name: str, services: Mapping[str, Any]) -> None:
        whole = {each: {"image": self.site.image, "init": True, **given} for each, given in services.items()}
        (self.folder / name).write_text(json.dumps({"services": whole}))

    def confinement(self) -> dict[str, str]:
        status = json.loads(self.do("clawker-fw status --format json || true"))
        return {each["name"]: each["state"] for each in status["agents"]}


def _docker() -> str:
    return subprocess.run(
        ["sh", "-c", "command -v docker"], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def desk(around: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A folder with one recipe's settings, and servers with the page's names."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "bin").mkdir()
    for name, text in PROGRAMS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "clawker-fw.yaml").write_text(blocks("Docker Compose", "yaml")[0])
    with site(around, tmp_path_factory.mktemp("site")) as place:
        made = Desk(place, folder, around.authority)
        yield made
        made.do("clawker-fw down --force")


GREETINGS = 4
"""Greetings of pip's package, its other host, npm's package, and the model."""

CODING = """
pip install -q --target /tmp/p --index-url https://pypi.example.org/pypi/simple/ greeting
python3 /tmp/p/greeting.py
curl -sS https://files.pypi.example.org/hello
mkdir /tmp/n; cd /tmp/n; npm install -s --registry https://registry.npm.example.org/npm/ greeting
node -e 'require("greeting")'
git clone -q git@git.example.com:greeting.git /tmp/clone; cd /tmp/clone
git -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m more
git push -q origin HEAD:more
"""


def on_terminal(section: str) -> str:
    """Return a section's commands, with `script` as the terminal that `-it` needs."""
    script = re.sub(
        r"^(clawker-fw agent run .*)$",
        r"cat >agent.sh <<'E'\n\1\nE\nscript -qec 'sh agent.sh' said",
        typed(section),
        flags=re.MULTILINE,
    )
    return script.replace("IMAGE", '"$IMAGE" sh -euc "$SCRIPT"')


STATUS = "curl -sS -o /dev/null -w '%{http_code}\n' https://"

CLAUDE = f"""
echo "$ANTHROPIC_API_KEY $GH_TOKEN"
pip install -q --target /tmp/p hello; cd /tmp/p; python3 -c 'import hello'
{STATUS}api.github.com/repos/acme/widgets
{STATUS}api.github.com/repos/acme/other
{STATUS}github.com/acme/other/info/refs?service=git-upload-pack
curl -sS {REFUSED} || echo refused
"""
"""GitHub's names have no server here, so allowed requests get 503."""


def test_a_claude_code_agent(desk: Desk) -> None:
    """It installs a package from a preset's registry, has no token, and reaches one repository."""
    section = "With tokens that the agent never has"
    rules, secrets = blocks(section, "yaml")
    here = desk.folder / "claude"
    (here / "work").mkdir(parents=True)
    (here / "bin").symlink_to(desk.folder / "bin")
    (desk.folder / "bin" / "gh").write_text("#!/bin/sh\necho token-of-github\n")
    (desk.folder / "bin" / "gh").chmod(0o755)
    (here / ".config" / "clawker-fw").mkdir(parents=True)
    (here / ".config" / "clawker-fw" / "secrets.yaml").write_text(secrets)
    authority = json.dumps({"ca_file": str(desk.authority)})
    (here / "clawker-fw.yaml").write_text(f"{rules}inspection: {authority}\n")
    reader = Desk(desk.site, here, desk.authority)
    desk.do("clawker-fw down --force")
    try:
        said = reader.do(on_terminal(section), HOME=str(here), ANTHROPIC_API_KEY="key-of-anthropic", SCRIPT=CLAUDE)
    finally:
        reader.do("clawker-fw down --force", HOME=str(here))
    assert "none-here none-here" in said
    assert re.findall(r"^(\d+)\r?$", said, re.MULTILINE) == ["503", "403", "403"], said
    assert "Could not resolve host: elsewhere.example.com" in said


def test_another_agent(desk: Desk) -> None:
    """It installs pip and npm packages, uses git over ssh, queries its model, and reaches nothing else."""
    (desk.folder / "work").mkdir()
    script = f"here=$PWD\n{CODING}{ASK}\ngit ls-remote origin more >$here/pushed"
    (desk.folder / "clawker-fw.yaml").write_text(blocks("Another agent", "yaml")[0])
    said = desk.do(on_terminal("Another agent"), SCRIPT=script)
    assert len(re.findall("hello$", said, re.MULTILINE)) == GREETINGS
    assert "Could not resolve host: elsewhere.example.com" in said
    assert "refs/heads/more" in (desk.folder / "work" / "pushed").read_text()


def test_compose(desk: Desk) -> None:
    """Services with the printed override are confined, and reach what the rules allow."""
    script = ASK.replace("$", "$$")
    desk.write("compose.yaml", {name: {"command": ["sh", "-c", script]} for name in ("web", "worker")})
    said = desk.follow("Docker Compose")
    lines = re.findall(r"(web|worker)-1 +\| (hello|refused)$", said, re.MULTILINE)
    assert sorted(lines) == [(name, word) for name in ("web", "worker") for word in ("hello", "refused")]


def test_compose_with_a_network_of_its_own(desk: Desk) -> None:
    """With the third file, a service reaches a non-agent, and `status` reports it as weak."""
    desk.write(
        "compose.yaml",
        {
            "web": {"command": ["sleep", "inf"]},
            "database": {"command": ["python3", "-m", "http.server", "80"], "networks": ["database"]},
        },
    )
    (desk.folder / "third.yaml").write_text(blocks("Services that need each other", "yaml")[0])
    compose = "docker compose -f compose.yaml -f firewall.yaml -f third.yaml"
    desk.do(f"clawker-fw run; clawker-fw agent compose web > firewall.yaml; {compose} up -d")
    try:
        assert list(desk.confinement().values()) == ["weak"]
        said = desk.do(f"{compose} exec -T web sh -c 'curl -sS http://database/etc/hostname; {ASK}'")
        assert said.endswith("hello\nrefused\n")
    finally:
        desk.do(f"{compose} down -t 0")


def test_a_service_that_the_override_leaves_out(desk: Desk) -> None:
    """`drift` prints the working command that puts it behind the firewall too."""
    desk.write("compose.yaml", {name: {"command": ["sleep", "inf"]} for name in ("web", "worker")})
    compose = "docker compose -f compose.yaml -f firewall.yaml"
    desk.do(f"clawker-fw run; clawker-fw agent compose web > firewall.yaml; {compose} up -d")
    try:
        assert len(desk.confinement()) == 1
        (command,) = re.findall("`(clawker-fw agent compose .*?)`", desk.do("clawker-fw drift 2>&1"))
        desk.do(command)
        assert list(desk.confinement().values()) == ["fenced", "fenced"]
        assert "agent compose" not in desk.do("clawker-fw drift 2>&1")
        assert desk.do(f"{compose} exec -T worker sh -c '{ASK}'") == "hello\nrefused\n"
    finally:
        desk.do(f"{compose} down -t 0")


def test_a_development_container(desk: Desk) -> None:
    """Started with the documented options, as its tool does, it is confined."""
    (text,) = blocks("Development containers", "json")
    words = shlex.join(json.loads(text)["runArgs"])
    name = "devcontainer"
    tool = f"docker run --sig-proxy=false -d --init --name {name} {words} --entrypoint sleep $IMAGE inf"
    desk.do(f"clawker-fw run; {tool}")
    try:
        assert desk.confinement() == {name: "fenced"}
        assert desk.do(f"docker exec {name} sh -euc '{ASK}'") == "hello\nrefused\n"
    finally:
        desk.do(f"docker rm --force {name}")


def test_building_images(desk: Desk) -> None:
    """A build step that shares an agent's network reaches what the rules allow; otherwise the build fails."""
    steps = (
        "pip install -q --retries 0 --target /tmp/p --index-url https://pypi.example.org/pypi/simple/ greeting",
        "python3 /tmp/p/greeting.py >/said",
        f"curl -sS {REFUSED} || echo refused >>/said",
    )
    text = "".join(f"RUN {step}\n" for step in steps)
    (desk.folder / "Dockerfile").write_text(f"FROM {desk.site.image}\n{text}")
    kept = typed("Building images").replace("IMAGE", '"$IMAGE"')
    (desk.folder / "clawker-fw.yaml").write_text(blocks("Building images", "yaml")[0])
    try:
        desk.do(kept)
        assert desk.do("docker run --rm app cat /said") == "hello\nrefused\n"
        (build,) = (line for line in kept.splitlines() if "docker build" in line)
        outside = build.replace("container:build", "clawker-net").replace("-t app", "--no-cache -q")
        assert desk.do(f"{outside} || echo failed").endswith("failed\n")
    finally:
        desk.do("docker rm --force build; docker image rm --force app")


def test_a_job_of_a_ci_system(desk: Desk) -> None:
    """It has its own stack, which confines, and is removed with the job in any case."""
    (text,) = blocks("A job", "sh")
    job = text.replace("IMAGE ./test", '"$IMAGE" sh -euc "$SCRIPT"')
    allowed = "curl -sS https://pypi.example.org/hello; ! curl -sS https://api.example.com/hello"
    assert "\nhello\n" in desk.do(job, JOB_ID="7", SCRIPT=allowed)
    shorter = job.replace("clawker-fw conformance\n", "")
    assert desk.do(f"sh -c {shlex.quote(shorter)} || echo failed", JOB_ID="8", SCRIPT="exit 1").endswith(
        "failed\n"
    )
    assert "job-" not in desk.do("docker ps --all; docker network ls; docker volume ls")
