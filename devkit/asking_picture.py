"""The picture of `denials --ask` in the documentation, by the real program: `python -m devkit.asking_picture`.

It runs at a terminal, over an in-memory engine. What a person types is in the picture as the terminal shows it.
"""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from devkit.asking import COLUMNS, Terminal
from devkit.demo import PICTURE
from devkit.stacks import CHECKOUT
from devkit.waiting import until

TARGET = CHECKOUT / "docs" / "pictures" / "asking.svg"
SETTINGS = "rules:\n  - dst: registry.npmjs.example\n  - dst: .packages.example\n    note: for builds\n"


def asked(folder: Path) -> str:
    """Have two agents be refused, answer, and return what the terminal has shown."""
    (folder / "clawker-fw.yaml").write_text(SETTINGS)
    with Terminal(folder) as shown:

        def is_asked() -> bool:
            shown.refuse("builder", "registry.npmj.example", "coredns", protocol="dns", port=53, type="A")
            return "registry.npmj.example" in shown.screen

        until(is_asked, 60, every=0.2)
        for number in range(10_000):
            shown.refuse("tests", f"{number:x}.upload.example")
        shown.type("y\n")
        shown.shows("and 19 more")
        shown.type("m\n")
        shown.shows("No more questions of tests")
        return shown.styled


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, default=TARGET, help="where to write it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        console = Console(record=True, width=COLUMNS, highlight=False)
        console.print(Text.assemble(("$ ", "dim"), ("clawker-fw denials --ask", "bold")))
        console.print(Text.from_ansi(asked(Path(folder)).rstrip("\n")))
    console.save_svg(str(arguments.svg), title="clawker-fw", code_format=PICTURE)


if __name__ == "__main__":
    main()
