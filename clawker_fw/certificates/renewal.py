"""What only the user can renew in time: the collector's certificate where the collector is, and the authority.

Pure: what is known of both comes in, and sentences come out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from clawker_fw.certificates.x509 import Judgement, is_due, moment
from clawker_fw.model import ServerCertificate

_EXPORT = "`clawker-fw certs export collector DIR`"
_READ = "have the collector read its new files"


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of certificates that are in use.

    `judged` is the judgement on those of the siblings. `exported` is the certificate that was exported last
    for the collector, and `shown` the one that it showed last. `superseded` is whether the authority has changed
    since that export, `own` whether the authority is the user's own, and `signs` whether we have its key.
    """

    judged: Judgement
    exported: ServerCertificate | None
    shown: ServerCertificate | None
    superseded: bool
    own: bool
    signs: bool


def due(now: float, known: Situation) -> Iterator[str]:
    """Yield a sentence for each thing to do."""
    begins, ends = known.judged.issued[0], known.judged.authority_ends
    if not known.judged.problem and is_due(now, begins, ends):
        how = (
            "replace it in `otel.certs_dir`, and the collector's with it"
            if known.own
            else f"run `clawker-fw certs rotate --authority` and {_EXPORT}, {_READ}, then run `clawker-fw run`"
        )
        yield f"The authority of telemetry's certificates expires at {moment(ends)}: {how}."
    if known.superseded:
        what = "The authority of telemetry's certificates is another one since the collector's was exported"
        yield f"{what}: repeat {_EXPORT}, and {_READ}."
        return
    seen = known.shown or known.exported
    if seen and is_due(now, seen.begins, seen.ends):
        verb = "has expired" if now >= seen.ends else "expires"
        how = f"repeat {_EXPORT}, and {_READ}" if known.signs else "give it another one"
        yield f"The collector's certificate {verb} at {moment(seen.ends)}: {how}."
