"""The whole program over an in-memory engine in which agents are refused things: `devkit.asked -- ARGUMENTS`.

The settings file is in the current folder, and a stack is brought up with it. Agents called `builder` and `tests`
are on its network. What they are refused comes as lines from the descriptor in the variable ASKED_RECORDS: the
name of an agent, the sibling that refuses, and the fields of its record, as JSON.
"""

import json
import os
import sys
import threading
from datetime import UTC, datetime

from clawker_fw.__main__ import main
from clawker_fw.cli import session
from clawker_fw.model import ContainerSpec, Shape
from devkit.memory.engine import MemoryEngine

AGENTS = ("builder", "tests")
NAME = "ASKED_RECORDS"


def refuse(memory: MemoryEngine, addresses: dict[str, str]) -> None:
    """Write a record into a sibling's log for each line that arrives, until there are no more."""
    with os.fdopen(int(os.environ[NAME]), encoding="utf-8") as lines:
        for line in lines:
            agent, sibling, fields = json.loads(line)
            record = {"time": "x", "source": f"{addresses[agent]}:40000", "port": 443, **fields}
            log = memory.inside(f"clawker-{sibling}")
            log.logged_at = datetime.now(UTC).strftime("%FT%T.%f000Z")
            log.log.append(json.dumps(record, separators=(",", ":")))


def run() -> None:
    arguments = sys.argv[sys.argv.index("--") + 1 :]
    memory = MemoryEngine()
    session.connect_engine = lambda chosen: memory  # noqa: ARG005 - the same name
    said, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), open(os.devnull, "w"), open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.argv = ["clawker-fw", "run"]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    sys.stdout, sys.stderr = said
    image, addresses = memory.inside("clawker-envoy").image, {}
    for name in AGENTS:
        memory.start(
            memory.create_container(ContainerSpec(name, image, {}, Shape((), (), {"clawker-net": ""}), {}))
        )
        addresses[name] = memory.inside(name).networks["clawker-net"]
    threading.Thread(target=refuse, args=(memory, addresses), daemon=True).start()
    sys.argv = ["clawker-fw", *arguments]
    main()


if __name__ == "__main__":
    run()
