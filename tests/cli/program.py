"""The whole program as a process with an in-memory engine: `program.py [RULE]... -- ARGUMENTS [";" ARGUMENTS]...`.

With rules before `--`, a stack with these rules runs, and an agent has been created, with its id in AGENT_ID.
The variables AGENT_SHAPE (JSON) and AGENT_PUBLISHES (a label) change it, PORT_TAKEN is a port in use, and REFUSED
is a host that Envoy has refused.
"""

import json
import os
import sys
from contextlib import suppress
from dataclasses import replace

from clawker_fw.__main__ import main
from clawker_fw.agents.attachment import Attachment
from clawker_fw.cli import session
from clawker_fw.cli.main import app
from clawker_fw.model.containers import ContainerSpec, Shape
from devkit import stacks
from devkit.memory.engine import MemoryEngine

if __name__ == "__main__":
    split = sys.argv.index("--")
    memory = MemoryEngine()
    if rules := sys.argv[1:split]:
        stacks.converged(memory, stacks.blueprint(memory.facts(), *rules))
        resolver = memory.inside("clawker-coredns").spec
        shape = replace(Attachment("clawker-net", "10.213.1.53").shape(()), mounts=())
        shape = replace(shape, **json.loads(os.environ.get("AGENT_SHAPE", "{}")))
        label, _, publishes = os.environ.get("AGENT_PUBLISHES", "").partition("=")
        if publishes:
            shape = replace(shape, networks={"clawker-net": "10.213.1.129"})
        created = ContainerSpec("agent", resolver.image, {label: publishes} if publishes else {}, shape)
        if taken := os.environ.get("PORT_TAKEN"):
            other = Shape((), (), {}, ports=(f"{taken}:1/tcp",))
            memory.start(memory.create_container(ContainerSpec("other", resolver.image, {}, other)))
        if refused := os.environ.get("REFUSED"):
            record = {"time": "x", "source": "10.213.0.1:1", "protocol": "tls", "port": 443, "name": refused}
            memory.inside("clawker-envoy").log.append(
                json.dumps({**record, "reason": "no-rule"}, separators=(",", ":"))
            )
        os.environ["AGENT_ID"] = memory.create_container(created)
    session.connect_engine = lambda chosen: memory  # noqa: ARG005 - the same name
    arguments = sys.argv[split + 1 :]
    while ";" in arguments:
        end = arguments.index(";")
        sys.stdout.write(f"$ {' '.join(arguments[:end])}\n")
        sys.stdout.flush()
        with suppress(SystemExit):
            app(arguments[:end])
        arguments = arguments[end + 1 :]
    sys.argv = ["clawker-fw", *arguments]
    main()
