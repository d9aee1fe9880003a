"""The last lines of a program's log that may say why it ended, for an error about it."""

import re

from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import EngineError, NotFoundError

_READ = 400
"""How many lines are read: an Envoy that is started again and again writes a backtrace each time."""

_SHOWN = 8

_IRRELEVANT = re.compile(
    r"""^\s*$
    | ^\s*\{  # a record of a refusal to an agent
    | ^\[[^\]]*\]\[\d+\]\[(trace|debug|info|warning)\](?!.*\brejected\b)  # Envoy warns of rejected files
    | \]\[backtrace\]\ \[[^\]]*\]\ (?!Caught\ )  # all of Envoy's backtrace but the signal
    | ^\s*(@|\#\d+)\s*(0x|\S+\ ) | ^\s*0x[0-9a-f]+  # addresses
    """,
    re.VERBOSE,
)


def last_words(reader: EngineReader, container: str) -> list[str]:
    """Return the last relevant lines of a container's log. A log that can't be read hides no other error."""
    try:
        lines = reader.last_words(container, _READ)
    except NotFoundError:
        return []
    except EngineError as error:
        return [f"the log of {container} could not be read: {error.in_one_line}"]
    return [f"log: {line}" for line in lines if not _IRRELEVANT.search(line)][-_SHOWN:]
