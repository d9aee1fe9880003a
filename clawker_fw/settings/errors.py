"""What is wrong with settings, in sentences with the place of each mistake."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

from clawker_fw.errors import MistakesError, SettingsError
from clawker_fw.rules.ruleset import ConflictsError
from clawker_fw.rules.schema import FIELDS
from clawker_fw.settings.document import SettingsDocument


def invalid(error: ValidationError, document: SettingsDocument, model: type[BaseModel]) -> SettingsError:
    """Return the error that names every mistake in a document for a model, with its place."""
    found = error.errors(include_url=False)
    # Missing rules are reported only if nothing else is wrong, because a mistyped key may be the reason.
    others = [each for each in found if (each["type"], each["loc"]) != ("missing", ("rules",))]
    problems = [_problem(details, document, model) for details in others or found]
    sentences = [f"{place}: {sentence}" for place, sentence, _ in problems]
    hint = next((hint for _, _, hint in problems if hint), "")
    if len(sentences) == 1:
        return SettingsError("settings-invalid", f"{sentences[0]}.", hint=hint)
    return MistakesError(
        "settings-invalid", f"{document.source} has {len(sentences)} mistakes.", mistakes=sentences, hint=hint
    )


def _problem(
    details: Any,  # noqa: ANN401 - pydantic's ErrorDetails
    document: SettingsDocument,
    model: type[BaseModel],
) -> tuple[str, str, str]:
    """Return the place of a problem, a sentence about it, and a hint."""
    location = details["loc"]
    place = document.place(location)
    key = ".".join(str(part) for part in location if isinstance(part, str))
    sentence, hint = f"`{key}`: {details['msg'][0].lower()}{details['msg'][1:]}, not {details['input']!r}", ""
    match details["type"]:
        case "extra_forbidden":
            near = [known.rpartition(".")[2] for known in _siblings_of(location, model)]
            sentence, hint = f"`{key}` is not a setting", did_you_mean(str(location[-1]), near, "")
        case "missing" if location == ("rules",):
            sentence = "`rules` is missing, so the allowed destinations are unknown"
            hint = "Write `rules: []` to deny everything, or list what agents may reach."
        case "missing":
            sentence = f"`{key}` is missing"
        case "string_type":
            sentence, hint = f"`{key}` is {details['input']!r}, not text", "Put it in quotes."
        case "value_error":
            sentence = str(details["ctx"]["error"])
        case "model_type" if location[0] == "rules":
            sentence = f"a rule is a mapping; write `dst: {details['input']}`"
        case "model_type":
            sentence = f"`{key}` must be a mapping"
        case "tuple_type":
            sentence = f"`{key}` must be a list"
    return place, sentence, hint


def _siblings_of(location: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """Return the valid keys at the place of an unknown one."""
    if location[0] == "rules" and len(location) > 1:
        return list(FIELDS)
    section = model
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return list(section.model_fields)


def did_you_mean(word: str, known: list[str], prefix: str) -> str:
    """Return the hint that names the known word that is most like an unknown one, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return (
        f"Did you mean `{prefix}{near[0]}`?"
        if near
        else f"Valid are: {', '.join(sorted(prefix + k for k in known))}."
    )


def contradicting(error: ConflictsError) -> SettingsError:
    """Return the error that names both rules of each conflict."""
    found = [f"{each.second.place}: {each.sentence}" for each in error.conflicts]
    if len(found) == 1:
        (only,) = error.conflicts
        return SettingsError(
            "rules-contradict",
            f"{found[0]}.",
            context=tuple(dict.fromkeys((only.first.place, only.second.place))),
            hint="Keep one of the two.",
        )
    return MistakesError(
        "rules-contradict",
        f"{len(found)} pairs of rules contradict each other.",
        mistakes=[f"{text}, {each.first.place}" for text, each in zip(found, error.conflicts, strict=True)],
        hint="Keep one of the two.",
    )
