"""The demonstration of the main job with the real program on a real engine: `./dev demo`."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from rich.console import Console
from rich.text import Text

from devkit import stacks
from devkit.engines import private_engine
from devkit.firewall import Firewall, Outcome, remove_project, upgraded
from devkit.host import client, some_engine
from devkit.peers import Peer, Peers
from devkit.programs import machine
from devkit.waiting import until
from devkit.world import NAMESERVER, WORLD, world_around

PROJECT = "clawker-demo"
EXAMPLE = stacks.CHECKOUT / "examples" / "demo.yaml"
WIDTH = 104
REQUESTS_PER_SECOND = 200
_WANTED = ("pypi.org", "files.pythonhosted.org", "api.example.com")


class Show:
    """The output of the demonstration, which can also be saved as a picture."""

    def __init__(self) -> None:
        self.console = Console(record=True, width=WIDTH, highlight=False)

    def step(self, text: str) -> None:
        self.console.print()
        self.console.print(Text(f"# {text}", style="bold blue"))

    def command(self, line: str) -> None:
        self.console.print(Text.assemble(("$ ", "dim"), (line, "bold")))

    def program(self, firewall: Firewall, verb: str, code: int = 0) -> Outcome:
        """Run a command of the real program, and show both without the options that all commands have."""
        self.command(f"clawker-fw {verb}")
        outcome = firewall.call(*verb.split()).expect(code)
        options = f" --config {firewall.settings} --project {firewall.project} --host {firewall.host}"
        for text in (outcome.err, outcome.out):
            if text.strip():
                plain = text.replace(options, "").replace(str(firewall.settings), firewall.settings.name)
                shown = Text.from_ansi(plain.rstrip("\n"))
                self.console.print(shown, no_wrap=True, overflow="ellipsis")
        return outcome

    def agent(self, agent: Peer, url: str, *, allowed: bool) -> None:
        answer = agent.get(url)
        if answer.ok != allowed:
            raise RuntimeError(f"{url} should be {'allowed' if allowed else 'refused'}: {answer}")
        self.command(f"agent: GET {url}")
        if answer.ok:
            self.console.print(Text(f"{answer.last['status']} in {answer.last['ms']:.0f} ms", style="green"))
        else:
            self.console.print(Text(f"refused: {answer.last['error']['text']}", style="red"))


def demonstrate(host: str, folder: Path, show: Show, python: str = sys.executable) -> None:
    """Show the main job on an engine, with the program that is installed for an interpreter."""
    sdk = client(host)
    variables = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    firewall = Firewall(host, PROJECT, folder, variables=variables, python=python)
    shutil.copy(EXAMPLE, firewall.settings)
    with ExitStack() as stack:
        stack.enter_context(closing(sdk))
        stack.callback(remove_project, sdk, PROJECT)
        remove_project(sdk, PROJECT)
        show.step("Start a firewall. One file lists what agents may reach.")
        show.program(firewall, "run")

        peers = Peers(sdk)
        stack.callback(peers.remove_all)
        firewall.origin(peers, ["api.demo.test", "eu.packages.demo.test", "evil.demo.test"])
        agent = firewall.agent(peers)
        show.step("An agent on its network reaches what a rule allows, and nothing else.")
        show.agent(agent, "https://api.demo.test/", allowed=True)
        show.agent(agent, "https://eu.packages.demo.test/", allowed=True)
        show.agent(agent, "https://evil.demo.test/", allowed=False)
        show.program(firewall, "drift")

        show.step(
            "Upgrade the tool: another CoreDNS, another Envoy bootstrap. The running containers are out of date."
        )
        newer = upgraded(firewall, folder / "next")
        release = stacks.copied_release(folder / "next")
        stacks.change_coredns(release, sdk.version()["Arch"])
        stacks.change_bootstrap(release)
        show.program(newer, "drift", code=1)

        show.step(f"An ordinary run replaces them, while an agent sends {REQUESTS_PER_SECOND} requests a second.")
        load = firewall.agent(
            peers, "load", "--rate", str(REQUESTS_PER_SECOND), "--seconds", "0", "https://api.demo.test/"
        )
        until(lambda: any(line.get("done") for line in load.said()))
        show.program(newer, "run")
        summary = load.stop().last
        sent, failed = summary["sent"], summary["failed"]
        show.console.print(
            Text.assemble(
                f"{sent} requests during the replacement, ",
                (f"{failed} failed", "bold green" if failed == 0 else "bold red"),
                f", the longest took {summary['longest_ms']:.0f} ms",
            )
        )
        show.program(newer, "drift")
        if failed:
            raise RuntimeError(f"{failed} requests failed: {json.dumps(summary['failures'])}")


def observe(folder: Path, show: Show) -> None:
    """Show how to find out what an agent needs, on an engine in a simulated internet."""
    with private_engine(dns=[NAMESERVER]) as engine, world_around(engine, folder, machine()) as world:
        variables = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
        firewall = Firewall(engine.host, PROJECT, folder, variables=variables)
        firewall.settings.write_text("rules: []\n")
        firewall.run()
        world.resolve({name: [WORLD] for name in (*_WANTED, "example.net")})
        sdk = client(engine.host)
        agent = firewall.agent(Peers(sdk))
        sdk.rename(agent.container, "builder")
        show.step("Nothing is allowed yet. Let the agent reach public hosts for ten minutes, and observe.")
        show.program(firewall, "rules observe 10m")
        for name in _WANTED:
            show.agent(agent, f"https://{name}/", allowed=True)
        show.step("End it, and ask which rules would have been needed.")
        show.program(firewall, "rules observe --stop")
        show.program(firewall, "rules suggest")
        show.program(firewall, "rules suggest --write")
        show.step("The agent has what it needs, and nothing else.")
        show.agent(agent, f"https://{_WANTED[0]}/", allowed=True)
        show.agent(agent, "https://example.net/", allowed=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, help="keep the output as a picture")
    parser.add_argument("--observe", action="store_true", help="show observing instead")
    arguments = parser.parse_args()
    show = Show()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        began = time.monotonic()
        if arguments.observe:
            observe(folder, show)
        else:
            demonstrate(stack.enter_context(some_engine()), folder, show)
        print(f"\nDone in {time.monotonic() - began:.0f} s, and everything is taken away again.", file=sys.stderr)
    if arguments.svg:
        arguments.svg.parent.mkdir(parents=True, exist_ok=True)
        show.console.save_svg(str(arguments.svg), title="clawker-fw")


if __name__ == "__main__":
    main()
