"""References to this repository's own files in comments, docstrings and pages."""

import re
import subprocess

from devkit.stacks import CHECKOUT

_FOLDERS = "clawker_fw|devkit|tests|templates|go/internal|go/cmd"
_FILE = re.compile(rf"`([\w./-]+\.(?:py|go|j2))`|\b((?:{_FOLDERS})/[\w./-]+\.(?:py|go|j2))\b")


def test_no_page_substitutes_flags_into_a_command() -> None:
    """`docker run $(clawker-fw agent flags)` would start an open container if the program failed."""
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    shown = [name for name in listed.stdout.split() if not name.startswith(("tests/", "devkit/"))]
    risky = re.compile(r"docker (?:run|create)\b[^&\n`]*\$\((?:clawker-fw|fw)\b")
    texts = {name: (CHECKOUT / name).read_text("utf-8", "replace") for name in shown}
    assert [name for name, text in texts.items() if risky.search(text)] == []


def test_files_that_comments_name_exist() -> None:
    """A file that a comment, a docstring or a page names is in this repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    files = listed.stdout.split()
    missing = set()
    for reader in files:
        if reader.endswith((".py", ".go", ".md")):
            for quoted, plain in _FILE.findall((CHECKOUT / reader).read_text("utf-8")):
                name = quoted or plain
                if not any(f"/{file}".endswith(f"/{name}") for file in files):
                    missing.add((reader, name))
    assert not missing
