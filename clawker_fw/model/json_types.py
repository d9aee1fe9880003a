"""Types of fields whose JSON differs from Python's."""

from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time (RFC 3339)."""

OrNull = Annotated[str, PlainSerializer(lambda text: text or None, return_type=str | None)]
"""A text that is null in JSON if it is empty."""
