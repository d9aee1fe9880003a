"""The commands about bundles in registries: `bundle push`, `pull`, `verify` and `promote`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import registries
from clawker_fw.cli.app import Commands, Panel, app
from clawker_fw.cli.output import write_output
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import print_json
from clawker_fw.errors import SettingsError, UsageError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clawker_fw.settings.bundles.keys import PublicKey
    from clawker_fw.settings.bundles.pulling import Pulled
    from clawker_fw.settings.bundles.reference import Reference
    from clawker_fw.settings.bundles.registry import Repository
    from clawker_fw.settings.bundles.store import Bundle

SECONDS = 30.0
"""How long each exchange with a registry may take, for a person or a job that waits for it."""

bundle_app = typer.Typer(
    cls=Commands,
    name="bundle",
    help="Push, pull, verify and promote settings in a registry.",
    rich_markup_mode=None,
)
app.add_typer(bundle_app, rich_help_panel=Panel.RULES)

ReferenceArgument = Annotated[str, typer.Argument(metavar="REFERENCE", hidden=True)]
KeyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="A public key that may have signed it. Without it, `bundle_keys` in the settings names them.",
    ),
]


@bundle_app.command("push")
def push(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    reference: ReferenceArgument,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Sign it with this private key: PEM, ECDSA P-256 or Ed25519."),
    ] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Check a file of settings, and push it to a registry: FILE, REFERENCE.

    Exit 3 if the settings are not valid, or have what only a host may say, such as paths; exit 4 if the registry
    fails. Without `--key`, sign what it prints with `cosign sign`: hosts refuse a bundle that is not signed.

    Example: clawker-fw bundle push rules.yaml oci://registry.example.com/team/rules:staging --key rules.key
    """
    import time

    from clawker_fw.settings.bundles import publishing
    from clawker_fw.settings.bundles.signature import signing_key

    parsed = _tagged(reference)
    signer = signing_key(key) if key else None
    text = publishing.checked(file)
    with _opened(parsed, writes=True) as repository:
        pushed = publishing.push(repository, text.content, parsed, time.time(), signer)
    _answer("pushed", pushed, parsed, len(text.loaded.rules.rules), format_)


@bundle_app.command("pull")
def pull(
    context: typer.Context,
    *,
    reference: ReferenceArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write its text into a file, and not to standard output."),
    ] = None,
    key: KeyOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Verify a bundle, and print its text: REFERENCE.

    Exit 3 if it is not signed by a trusted key, or not valid; exit 4 if the registry fails. Nothing is applied.

    Example: clawker-fw bundle pull oci://registry.example.com/team/rules:production --key cosign.pub
    """
    if output is None and format_ is Format.JSON:
        raise UsageError("output-missing", "With `--format json`, `--output FILE` says where its text goes.")
    parsed = _parsed(reference)
    found, rules = _verified(context.obj, parsed, key)
    if output is None:
        terminal.answer(found.text.removesuffix("\n"))
        return
    write_output(output, found.text.encode())
    _answer("pulled", found.bundle, parsed, rules, format_)


@bundle_app.command("verify")
def verify(
    context: typer.Context,
    *,
    reference: ReferenceArgument,
    key: KeyOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Verify a bundle in a registry, as a host would: REFERENCE.

    Exit 0 if it is signed by a trusted key and has valid settings, 3 if not, 4 if the registry fails.

    Example: clawker-fw bundle verify oci://registry.example.com/team/rules:production --key cosign.pub
    """
    parsed = _parsed(reference)
    found, rules = _verified(context.obj, parsed, key)
    _answer("verified", found.bundle, parsed, rules, format_)


@bundle_app.command("promote")
def promote(
    context: typer.Context,
    *,
    source: Annotated[str, typer.Argument(metavar="FROM", hidden=True)],
    target: Annotated[str, typer.Argument(metavar="TO", hidden=True)],
    key: KeyOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Verify a bundle, and copy it to another tag: FROM, TO.

    The tag may be in another registry. It is copied byte for byte, with its signatures, and never signed again:
    what hosts take is what was signed.

    Example: clawker-fw bundle promote oci://r.example.com/team/rules:staging
    oci://r.example.com/team/rules:production
    """
    from clawker_fw.settings.bundles import publishing

    whence, whither = _parsed(source), _tagged(target)
    keys = _keys(context.obj, key)
    with _opened(whence) as original, _opened(whither, writes=True) as wanted:
        found = publishing.promote((original, whence), (wanted, whither), keys, _check)
    _answer("promoted", found.bundle, whither, _check(found.text, found.bundle), format_)


def _verified(chosen: Options, reference: "Reference", key: list[Path] | None) -> "tuple[Pulled, int]":
    """Return a bundle that has been verified, and how many rules it has."""
    from clawker_fw.settings.bundles.pulling import pulled

    keys = _keys(chosen, key)
    with _opened(reference) as repository:
        found = pulled(repository, reference, keys)
    return found, _check(found.text, found.bundle)


def _check(text: str, bundle: "Bundle") -> int:
    """Require that a bundle has valid settings, which any host may have. Return how many rules it has."""
    from clawker_fw.settings.bundles.publishing import settings_in
    from clawker_fw.settings.sources import Source

    return len(settings_in(Source(Path(), text, bundle=bundle)).rules.rules)


def _keys(chosen: Options, key: list[Path] | None) -> "Sequence[PublicKey]":
    """Return the keys that the user named, or those of the settings.

    Raises:
        SettingsError: when there are none.
    """
    from clawker_fw.settings.bundles.keys import public_keys
    from clawker_fw.settings.load import bundles_named

    files = key or bundles_named(chosen.config, os.environ).keys
    if not files:
        raise SettingsError(
            "bundle-without-key",
            "A bundle is verified with a public key, and none is known.",
            hint="Name its file with `--key`, or in the settings: `bundle_keys: [cosign.pub]`.",
        )
    return public_keys(files)


@contextmanager
def _opened(reference: "Reference", *, writes: bool = False) -> "Iterator[Repository]":
    repository = registries.opened(reference, writes=writes, seconds=SECONDS)
    try:
        yield repository
    finally:
        repository.close()


def _parsed(text: str) -> "Reference":
    from clawker_fw.settings.bundles.reference import parse_reference

    try:
        return parse_reference(text)
    except ValueError as error:
        raise UsageError("reference-invalid", f"{error}.") from error


def _tagged(text: str) -> "Reference":
    """Return a reference that can be pushed to."""
    parsed = _parsed(text)
    if parsed.digest or not parsed.tag:
        raise UsageError(
            "reference-invalid", f"{parsed} has no place for another bundle: name a tag, and no digest."
        )
    return parsed


def _answer(done: str, bundle: "Bundle", reference: "Reference", rules: int, format_: Format) -> None:
    pinned = str(reference.at(bundle.digest))
    if format_ is Format.JSON:
        from clawker_fw.report.documents.bundle import BundleDocument

        print_json(BundleDocument.of(bundle, pinned, rules))
        return
    signed = f"signed by {bundle.key}" if bundle.key else "not signed yet"
    terminal.answer(f"{done}  {pinned}  {rules:,} rules, {signed}")
