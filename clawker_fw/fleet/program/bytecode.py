"""Python's bytecode of a source file, the same wherever it is compiled.

Without it, each container would compile all that it imports again, which takes longer than most commands. It
is of the kind that names the source's hash and not its time (PEP 552), and is not compared with the source: nobody
changes an image.
"""

import importlib.util
import marshal
import sys
from functools import cache
from pathlib import Path, PurePosixPath
from types import CodeType
from typing import Any

_UNCHECKED_HASH = (1).to_bytes(4, "little")


def path_of(source: str) -> str:
    """Return where Python looks for the bytecode of a source file."""
    return str(PurePosixPath(importlib.util.cache_from_source(source, optimization="")))


@cache
def compiled(source: Path, path: str) -> bytes:
    """Return the bytecode of a source file that will be at a path. It is empty if the source can't be compiled.

    Python then looks at the source, as with any bytecode that it can't use.
    """
    text = source.read_bytes()
    try:
        code = compile(text, importlib.util.source_from_cache(path), "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        return b""
    held: list[object] = []
    written = marshal.dumps(_settled(code, held))
    return b"".join((importlib.util.MAGIC_NUMBER, _UNCHECKED_HASH, importlib.util.source_hash(text), written))


def _settled(value: Any, held: list[object]) -> Any:  # noqa: ANN401 - whatever a constant can be
    """Return a part of a code object so that `marshal` always writes it in the same way, and keep it in `held`.

    It writes a text in another way if the whole interpreter shares it, and any value if nobody else refers to
    it. What else has been loaded may decide either. So all texts are shared here, and all values are held.
    """
    made = value
    if isinstance(value, str):
        made = sys.intern(value)
    elif isinstance(value, tuple):
        made = tuple(_settled(each, held) for each in value)
    elif isinstance(value, frozenset):
        made = frozenset(_settled(each, held) for each in value)
    elif isinstance(value, CodeType):
        made = value.replace(
            co_consts=tuple(_settled(each, held) for each in value.co_consts),
            co_filename=sys.intern(value.co_filename),
            co_name=sys.intern(value.co_name),
            co_qualname=sys.intern(value.co_qualname),
        )
        held += [made.co_consts, made.co_names, made.co_filename, made.co_name, made.co_qualname]
    held.append(made)
    return made
