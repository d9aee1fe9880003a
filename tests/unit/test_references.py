"""What comments, docstrings and pages say of this repository's own files."""

import re
import subprocess

from devkit.stacks import CHECKOUT

_FOLDERS = "clawker_fw|devkit|tests|templates|go/internal|go/cmd"
_FILE = re.compile(rf"`([\w./-]+\.(?:py|go|j2))`|\b((?:{_FOLDERS})/[\w./-]+\.(?:py|go|j2))\b")


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
