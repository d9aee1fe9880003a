"""The command that makes an image of the installed release."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli.app import Panel, app
from clawker_fw.cli.output import STANDARD_OUTPUT, writing
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import print_json
from clawker_fw.errors import NotProvenError, RefusedError, UsageError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from clawker_fw.engine.port import EngineWriter
    from clawker_fw.stack.image_tar import BuiltImage


@app.command("image", rich_help_panel=Panel.KEEPING)
def image(
    context: typer.Context,
    *,
    load: Annotated[
        bool, typer.Option("--load", help="Load it into the engine, unless that has it already.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write it as a tar for `docker load`; `-` stands for standard output.",
        ),
    ] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Make an image of this release, to run in containers.

    A container of it needs the engine's socket. It has the Python that runs this command, the package and all
    that it requires, and nothing else: no base image, no shell. The same installation gives the same bytes, so its
    id is known without an engine. Without an option, the image's name, id, size and content are printed, and
    nothing is written.

    Example: clawker-fw image --load
    """
    from dataclasses import replace

    from clawker_fw.fleet.program.image import Distribution
    from clawker_fw.report.image import ImageAnswer, PackageInside, lines
    from clawker_fw.stack.release import Release

    chosen: Options = context.obj
    if load and output:
        raise UsageError("image-two-ways", "--load and --output are two ways to get the image; give one of them.")
    if output == STANDARD_OUTPUT:
        _require_pipe(format_)
    made = Distribution(Release.installed())
    built = made.image
    answer = ImageAnswer(
        built.references,
        built.ids,
        built.architecture,
        built.archive_size,
        built.version,
        made.release.build_sha,
        made.python,
        [PackageInside(each.name, each.version) for each in made.packages],
        sorted(made.libraries),
    )
    if output:
        with writing(output) as stream:
            stream.writelines(built.archive())
        if output == STANDARD_OUTPUT:
            return
        answer = replace(answer, output=output)
    elif load:
        from clawker_fw.cli import session

        engine = session.connect_engine(chosen)
        answer = replace(answer, loaded=_load(engine, built), engine=engine.facts().endpoint)
    if format_ is Format.JSON:
        from clawker_fw.report.documents.image import ImageDocument

        print_json(ImageDocument.of(answer))
    else:
        terminal.answer("\n".join(lines(answer)))


def _require_pipe(format_: Format) -> None:
    """Require that standard output takes an image, and nothing else."""
    if format_ is Format.JSON:
        raise UsageError("image-two-answers", "With `--output -`, standard output has the image and no JSON.")
    if sys.stdout.isatty():
        raise UsageError(
            "image-to-terminal",
            "An image is not written to a terminal.",
            hint="Name a file, or pipe it: `clawker-fw image --output - | docker load`.",
        )


def _load(engine: "EngineWriter", built: "BuiltImage") -> bool:
    """Load an image unless the engine has it, and return whether it was loaded.

    Raises:
        RefusedError: when the engine's machine has another architecture.
        NotProvenError: when the engine then has another image.
    """
    if (there := engine.facts().architecture) != built.architecture:
        raise RefusedError(
            "image-other-architecture",
            f"The image is for linux/{built.architecture}, and the engine runs linux/{there}.",
            hint="Make it on a machine of the engine's architecture.",
        )
    if _has(engine, built):
        return False
    engine.load_image(built.archive(), built.archive_size, lambda _: None)
    if not _has(engine, built):
        raise NotProvenError(
            "image-other",
            "The engine has loaded the image and has another one under its name.",
            context=[f"{each}: {found.id}" for each in built.references if (found := engine.image(each))],
            hint="Run the command again; somebody may have loaded another release meanwhile.",
        )
    return True


def _has(engine: "EngineWriter", built: "BuiltImage") -> bool:
    found = [engine.image(each) for each in built.references]
    return all(each and each.id in built.ids for each in found)
