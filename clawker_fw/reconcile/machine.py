"""What the kernel of the engine's machine has to have, asked for there: the engine may be on another machine."""

import json

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError
from clawker_fw.fwctl import read_lacking
from clawker_fw.model import ContainerSpec
from clawker_fw.reconcile.errand import errand
from clawker_fw.stack.image_tar import BuiltImage

_WITHIN = 60.0

DROPS_FRAMES = "the packet filter of the engine's machine"
"""What `fwctl` names where that drops what passes between containers."""

ACCEPT_FRAMES = (
    "On that machine, run `sysctl -w net.bridge.bridge-nf-call-iptables=0`, or accept what is bridged in its "
    "FORWARD chain."
)
"""What to do there."""


def lacking(
    engine: EngineWriter, project: str, spec: ContainerSpec, image: BuiltImage | None = None
) -> tuple[str, ...]:
    """Return what the kernel lacks, a sentence each. `image` is the container's, if it is one of ours.

    Raises:
        EngineError: when there is no answer.
    """
    with errand(engine, project, spec, _WITHIN, image) as lines:
        try:
            answer = json.loads((lines or ("",))[-1])
            return read_lacking(answer)
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                "machine-silent",
                "The Docker host's kernel could not be checked for what the firewall needs.",
                context=list((lines or (f"no answer within {_WITHIN:g} s",))[-3:]),
                hint="`clawker-fw doctor` looks for the cause.",
            ) from error


def require_kernel(engine: EngineWriter, project: str, spec: ContainerSpec, image: BuiltImage | None) -> None:
    """Require that the kernel has all that the siblings need.

    Raises:
        EngineError: when it lacks something; the context lists everything.
    """
    if missing := lacking(engine, project, spec, image):
        raise EngineError(
            "machine-lacks",
            "The Docker host's kernel lacks what the firewall needs. Nothing has been changed.",
            context=list(missing),
            hint="Each line says what is needed there. `clawker-fw doctor` checks again.",
        )
