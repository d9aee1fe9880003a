"""The types of fields that JSON writes in another way than Python."""

from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time as RFC 3339 writes it."""


OrNull = Annotated[str, PlainSerializer(lambda text: text or None, return_type=str | None)]
"""A text that is null in JSON if it is empty."""
