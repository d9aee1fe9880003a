"""The answer of `clawker-fw rules presets` for people."""

from collections.abc import Iterator, Sequence

from clawker_fw.settings.preset import Preset, Proof

_PROOFS = {
    Proof.TESTED: "tested, and each name is needed",
    Proof.CITED: "from the vendor's pages, not tested",
}


def rows(presets: Sequence[Preset]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and the rows of the table of presets."""
    headings = ("preset", "version", "for", "names", "proof")
    return headings, [
        (
            each.name,
            str(each.version),
            each.purpose,
            " ".join(str(rule.destination) for rule in each.rules),
            each.proof.value,
        )
        for each in presets
    ]


def lines(preset: Preset) -> Iterator[str]:
    """Yield all that there is to say of a preset."""
    yield f"{preset.name}, version {preset.version}: {preset.purpose}"
    width = max(map(len, preset.lines))
    for rule in preset.rules:
        yield f"  {rule!s:<{width}}  {rule.note}".rstrip()
    by = f": {preset.proven_by}" if preset.proven_by else ""
    yield f"proof     {_PROOFS[preset.proof]}{by}"
    if preset.left_out:
        yield f"left out  {preset.left_out}"
    for page in preset.pages:
        yield f"see       {page}"
