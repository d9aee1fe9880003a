"""Runs a verb of `fwctl` in a container through the engine, and reads its answers, which are lines of JSON."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from clawker_fw.engine import bounds
from clawker_fw.engine.failures import require_room, translated
from clawker_fw.engine.outputs import EXIT_SECONDS, dialogue, exit_code, outputs
from clawker_fw.engine.transport import Client
from clawker_fw.errors import EngineError
from clawker_fw.stack.container import HELPER_PATH


def run_in_helper(
    client: Client,
    container: str,
    arguments: Sequence[str],
    on_line: Callable[[Any], None],
    silence: float,
    *,
    sent: bytes = b"",
) -> None:
    """Run a verb. The arguments and errors are those of `EngineWriter.run_helper`."""
    rest, complaint = b"", b""
    running = f"run fwctl {arguments[0]} in container {container}"
    with translated(running), _explaining_silence(arguments[0], container, silence):
        identity = client.exec_create(container, [HELPER_PATH, *arguments], stdin=bool(sent))["Id"]
        talk = dialogue(client, identity, sent, silence) if sent else outputs(client, identity, silence)
        with closing(talk) as written:
            for stdout, stderr in written:
                complaint = (complaint + stderr)[: bounds.COMPLAINT]
                *lines, rest = (rest + stdout).split(b"\n")
                if len(rest) > bounds.HELPER:
                    raise bounds.too_long("an answer of fwctl", bounds.HELPER)
                for line in lines:
                    try:
                        answer = json.loads(line)
                    except ValueError:  # the engine's message when it could not run the helper
                        complaint = (complaint + line)[: bounds.COMPLAINT]
                        continue
                    on_line(answer)
        code = exit_code(client, identity)
    words = (complaint or rest[: bounds.COMPLAINT]).decode(errors="replace").strip()
    if code is None:
        raise EngineError(
            "helper-unfinished",
            f"fwctl {arguments[0]} in container {container} has no exit code.",
            context=[f"its output ended {EXIT_SECONDS:g} s ago", words or "no error output"],
            hint="The container was restarted, or the engine is overloaded: run the command again.",
        )
    if code != 0:
        complaints = words or f"exit code {code}"
        require_room(running, complaints)
        raise EngineError(
            "helper-failed", f"fwctl {arguments[0]} failed in container {container}.", context=[complaints]
        )


@contextmanager
def _explaining_silence(verb: str, container: str, silence: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise EngineError(
            "helper-silent",
            f"fwctl {verb} in container {container} said nothing for {silence:g} s.",
            hint="The container was restarted, or the engine is overloaded: run the command again.",
        ) from error
