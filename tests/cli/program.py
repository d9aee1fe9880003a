"""The whole program as a process with an in-memory engine: `program.py [RULE]... -- ARGUMENTS`.

With rules before the `--`, a stack with these rules is running.
"""

import sys

from clawker_fw.__main__ import main
from clawker_fw.cli import connection
from devkit import stacks
from devkit.memory.engine import MemoryEngine

if __name__ == "__main__":
    split = sys.argv.index("--")
    memory = MemoryEngine()
    if rules := sys.argv[1:split]:
        stacks.converged(memory, stacks.blueprint(memory.facts(), *rules))
    connection.connect_engine = lambda chosen: memory  # noqa: ARG005 - the same name
    sys.argv = ["clawker-fw", *sys.argv[split + 1 :]]
    main()
