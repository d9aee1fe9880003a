"""Errors in settings as sentences, each with its place."""

import difflib
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from clawker_fw.errors import MistakesError, SettingsError
from clawker_fw.rules.promise_words import NeverEntry
from clawker_fw.rules.promises import BrokenPromise
from clawker_fw.rules.ruleset import ConflictsError
from clawker_fw.rules.schema import FIELDS
from clawker_fw.settings.document import Location, SettingsDocument
from clawker_fw.settings.groups import own_location
from clawker_fw.settings.model import GroupSettings, section_types


def invalid(error: ValidationError, document: SettingsDocument, model: type[BaseModel]) -> SettingsError:
    """Return one error that lists every invalid value of a document, with its place."""
    reported = error.errors(include_url=False)
    # Report missing rules only if nothing else is wrong, because a mistyped key may be the reason.
    others = [details for details in reported if (details["type"], details["loc"]) != ("missing", ("rules",))]
    problems = [_problem(details, document, model) for details in others or reported]
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
    location = details["loc"]
    place = document.place(location)
    key = ".".join(str(part) for part in location if isinstance(part, str))
    location, model = _in_stack(location, model)
    sentence, hint = f"`{key}`: {details['msg'][0].lower()}{details['msg'][1:]}, not {details['input']!r}", ""
    match details["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            near = [name.rpartition(".")[2] for name in _siblings_of(location, model)]
            sentence, hint = f"`{key}` is not a setting", did_you_mean(str(location[-1]), near, "")
        case "missing" if location == ("rules",):
            sentence = "`rules` is missing, so the allowed destinations are unknown"
            hint = "Write `rules: []` to deny everything, or list what agents may reach."
        case "missing":
            sentence = f"`{key}` is missing"
        case "string_type" if location[0] == "presets":
            sentence = "`presets` has names alone"
            hint = (
                "Your own rule replaces the preset's rule for the same name, protocol and port, even if it denies."
            )
        case "string_type":
            sentence = f"`{key}` is {details['input']!r}, not text"
            hint = "" if isinstance(details["input"], dict) else "Put it in quotes."
        case "value_error":
            sentence = str(details["ctx"]["error"])
        case "model_type" if location[0] in {"never", "always"}:
            fields = ", ".join(f"`{name}`" for name in NeverEntry.model_fields)
            sentence = f"`{location[0]}` has names, or mappings with {fields}"
        case "model_type" | "dataclass_type":
            in_rules = location[0] == "rules"
            field, colon, value = str(details["input"]).partition(":")
            written = f"{field}: {value}" if colon and field in FIELDS else f"dst: {details['input']}"
            mapping = f"a rule is a mapping; write `{written}`"
            sentence = mapping if in_rules else f"`{key}` must be a mapping"
        case "tuple_type":
            sentence = f"`{key}` must be a list"
    return place, sentence, hint


def _in_stack(location: Location, model: type[BaseModel]) -> tuple[Location, type[BaseModel]]:
    """Return the location inside the settings of its group, if it is in one, and the model of these settings."""
    match location:
        case ("groups", _, _, *_):
            return location[len(own_location("any")) :], GroupSettings
        case _:
            return location, model


def _siblings_of(location: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    if location[0] == "rules" and len(location) > 1:
        return list(FIELDS)
    if location[0] in {"never", "always"} and len(location) > 1:
        return list(NeverEntry.model_fields)
    section: Any = model
    for part in location[:-1]:
        section = section_types(section)[str(part)]
        if not is_dataclass(section):
            return []
    return list(section_types(section))


def did_you_mean(word: str, words: list[str], prefix: str) -> str:
    """Return a hint with the known word closest to an unknown one, or with all known words."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if near:
        return f"Did you mean `{prefix}{near[0]}`?"
    return f"Valid are: {', '.join(sorted(prefix + k for k in words))}." if words else ""


def contradicting(error: ConflictsError) -> SettingsError:
    """Return the error that names both rules of each conflict."""
    keep = "Keep one of the two."
    sentences = [f"{conflict.second.place}: {conflict.sentence}" for conflict in error.conflicts]
    if len(sentences) == 1:
        places = dict.fromkeys((error.conflicts[0].first.place, error.conflicts[0].second.place))
        return SettingsError("rules-contradict", f"{sentences[0]}.", context=tuple(places), hint=keep)
    return MistakesError(
        "rules-contradict",
        f"{len(sentences)} pairs of rules contradict each other.",
        mistakes=[
            f"{text}, {conflict.first.place}" for text, conflict in zip(sentences, error.conflicts, strict=True)
        ],
        hint=keep,
    )


def not_through_proxy(sentences: Sequence[str]) -> SettingsError:
    """Return the error that lists the rules that the upstream proxy can't carry."""
    change = "Change the rule, or name the host in `upstream.no_proxy` if it is reached directly."
    if len(sentences) == 1:
        return SettingsError("rule-not-through-proxy", f"{sentences[0]}.", hint=change)
    message = f"The proxy of `upstream` can't carry {len(sentences)} rules."
    return MistakesError("rule-not-through-proxy", message, mistakes=sentences, hint=change)


def promises_broken(broken_promises: Sequence[BrokenPromise]) -> SettingsError:
    """Return the error that names each broken promise and the rule that breaks it, with both places."""
    change = "Change the rule, or take the promise back. A rule with `action: deny` denies a name of a preset."
    if len(broken_promises) == 1:
        return SettingsError(
            "promise-broken", f"{broken_promises[0]}.", context=broken_promises[0].places, hint=change
        )
    return MistakesError(
        "promise-broken",
        f"The rules break what is promised of them, {len(broken_promises)} times.",
        mistakes=[str(broken_promise) for broken_promise in broken_promises],
        hint=change,
    )
