"""The answers of `bundle push`, `pull`, `verify` and `promote`."""

from dataclasses import dataclass

from pydantic import NonNegativeInt

from clawker_fw.report.documents import Document, Moment
from clawker_fw.rules.until import rfc3339
from clawker_fw.settings.bundles.store import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleDocument(Document):
    """A bundle in a registry."""

    reference: str
    """Where it is, with `oci://`."""
    digest: str
    """That of its manifest, which is signed."""
    pinned: str
    """The reference with the digest, for a settings file that pins it."""
    created: Moment
    """When it was pushed, as its manifest says."""
    signed_by: str | None
    """The SHA-256 of the public key that verifies it; null if it was pushed without a signature."""
    rules: NonNegativeInt
    """How many rules its settings have, with those of presets."""

    @classmethod
    def of(cls, bundle: Bundle, pinned: str, rules: int) -> "BundleDocument":
        """Return the answer."""
        return cls(
            reference=bundle.reference,
            digest=bundle.digest,
            pinned=pinned,
            created=rfc3339(bundle.created),
            signed_by=bundle.key or None,
            rules=rules,
        )
