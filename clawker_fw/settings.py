"""The settings: where they are looked for, how they are read and checked, and what each may be.

Order: command line, environment (`CLAWKER_FW_OTEL__INFRA_PORT`), file, default. pydantic checks at this door;
inside, settings are frozen values. A file that can't be read is an error, never "no rules".
"""

import difflib
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
)

from clawker_fw.document import Document, document_of, read_text
from clawker_fw.errors import RefusedError, SettingsError
from clawker_fw.rules.ruleset import ContradictionError, RuleSet, TooManyError
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings_file import FILE_NAME, PROJECT_FORM, PROJECT_NAME, find, users_file

ENVIRONMENT_PREFIX = "CLAWKER_FW_"
OPTION_VARIABLES = frozenset({"CONFIG", "PROJECT", "HOST", "CONTEXT", "LOG_FORMAT", "DEBUG", "VERSION", "FORMAT"})
"""Variables with our prefix that stand for command line options, not for settings."""

SHORTEST_SUBNET_PREFIX, LONGEST_SUBNET_PREFIX = 8, 25
_MOST_SHOWN = 10
LONGEST_DURATION = 86400


def parse_duration(value: object) -> float:
    """Read a duration: a number of seconds, or a number with `ms`, `s`, `m` or `h`.

    Raises:
        ValueError: when it is neither.
    """
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*", str(value))
    if match is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is no duration; write seconds, or a number with ms, s, m or h (`30s`)")
    return float(match[1]) * units[match[2]]


def _image(text: str) -> str:
    if text == "bundled" or re.fullmatch(r"[a-zA-Z0-9][\w.:/-]*@sha256:[0-9a-f]{64}", text):
        return text
    raise ValueError(
        f"{text!r} does not say which bytes it is; write `bundled`, or a reference with a digest (name@sha256:…)"
    )


def _subnet(value: object) -> IPv4Network:
    network = IPv4Network(str(value))
    if not SHORTEST_SUBNET_PREFIX <= network.prefixlen <= LONGEST_SUBNET_PREFIX:
        raise ValueError(f"{network} must have a prefix of /{SHORTEST_SUBNET_PREFIX} to /{LONGEST_SUBNET_PREFIX}")
    if not network.is_private:
        raise ValueError(f"{network} is public address space; agents need a private subnet (RFC 6890)")
    return network


def _project(name: str) -> str:
    if re.fullmatch(PROJECT_NAME, name):
        return name
    raise ValueError(f"{name!r} is no name of a project: {PROJECT_FORM}")


Project = Annotated[StrictStr, AfterValidator(_project)]
Image = Annotated[StrictStr, AfterValidator(_image)]
Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=LONGEST_DURATION)]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSettings(_Section):
    """The agent network."""

    subnet: Annotated[IPv4Network, BeforeValidator(_subnet)] | None = Field(
        default=None,
        description="The agent network's subnet, /8 to /25. Left out, a free /20 is chosen once and kept.",
    )


class ImageSettings(_Section):
    """What the siblings are made from."""

    envoy: Image = Field(
        default="bundled",
        description="`bundled`, or a registry reference pinned by digest (`name:tag@sha256:…`).",
    )
    coredns: Image = Field(default="bundled", description="The same for the resolver.")


class OtelSettings(_Section):
    """Telemetry of the siblings themselves."""

    infra_port: Port = Field(
        default=4319, description="The port of the infrastructure's OTLP receiver; part of what a sibling is."
    )


class Settings(_Section):
    """Everything that can be set."""

    rules: tuple[RuleEntry, ...] = Field(
        description="The allowed destinations. `[]` denies everything; it has to be said."
    )
    project: Project | None = Field(
        default=None,
        description="Which stack these settings are for: part of every name. Left out, it is `clawker`.",
    )
    network: NetworkSettings = NetworkSettings()
    images: ImageSettings = ImageSettings()
    otel: OtelSettings = OtelSettings()
    drain_timeout: Duration = Field(
        default=30.0,
        description="How long a replaced Envoy's open connections may go on, e.g. `30s`.",
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that have been read and checked.

    `source` is the file they came from, if any, and `found` where that was, `""` when the user named it.
    """

    settings: Settings
    rules: RuleSet
    source: Path | None
    found: str

    @property
    def files(self) -> tuple[Path, ...]:
        """The settings file, and what it includes."""
        return (self.source.absolute(),) if self.source else ()

    @property
    def digest(self) -> str:
        """What tells these settings from others, however they are written."""
        return hashlib.sha256(self.settings.model_dump_json().encode()).hexdigest()


def example() -> str:
    """Return the commented settings file that `init` writes."""
    return Path(__file__).with_name("example.yaml").read_text(encoding="utf-8")


def write_example(path: Path, *, overwrite: bool) -> Path:
    """Write the commented settings file, whole or not at all.

    Raises:
        RefusedError: when a file is there and is not to be overwritten.
        SettingsError: when it can't be written.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        if path.exists() and not overwrite:
            raise RefusedError("settings-exist", f"{path} is there already.", hint="Use --force to overwrite it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(example(), encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise SettingsError("settings-unwritable", f"{path} can't be written: {error}.") from error
    return path


def search_paths() -> tuple[Path, ...]:
    """Return where a settings file is looked for when none is named, in order."""
    return Path(FILE_NAME), users_file()


def load(named: Path | None, environment: Mapping[str, str]) -> Loaded:
    """Read the settings. What says the same as the last time is the very object of that time.

    `named` is the file the user named, by option or `CLAWKER_FW_CONFIG`; without one the search path is used.

    Raises:
        SettingsError: when there is no file and no environment to use instead, or anything in them is wrong.
    """
    variables = tuple(sorted(each for each in environment.items() if each[0].startswith(ENVIRONMENT_PREFIX)))
    source, found = find(named)
    return _loaded(source, found, read_text(source) if source else "", variables)


@functools.lru_cache(maxsize=1)
def _loaded(source: Path | None, found: str, text: str, variables: tuple[tuple[str, str], ...]) -> Loaded:
    """Return what a settings file's text and the environment say; thousands of rules take a while to check."""
    overlay = _environment_document(dict(variables))
    if source is None and not overlay.values:
        raise SettingsError(
            "settings-not-found",
            "There is no settings file, so it is not known what to allow.",
            context=[f"looked for {path}" for path in search_paths()],
            hint="Write one with `clawker-fw init`, or name one with `--config`.",
        )
    document = document_of(text, source) if source else Document({}, {}, "the environment")
    merged = document.overlaid(overlay)
    try:
        settings = Settings.model_validate(merged.values)
    except ValidationError as error:
        raise _settings_error(error, merged) from error
    try:
        rules = RuleSet.of(entry.rule() for entry in settings.rules)
    except ContradictionError as error:
        places = [merged.place(("rules", position)) for position in error.positions]
        raise SettingsError(
            "rules-contradict", f"{places[1]}: {error}.", context=places, hint="Keep one of the two."
        ) from error
    except TooManyError as error:
        raise SettingsError(
            "rules-too-many",
            f"{merged.source}: {error}.",
            hint="A subtree (`.example.com`) stands for a name and all that is below it.",
        ) from error
    return Loaded(settings, rules, source, found)


def _environment_document(environment: Mapping[str, str]) -> Document:
    """Return the settings that the environment names; `__` separates the parts of a key."""
    document = Document({}, {}, "the environment")
    known = {key.upper().replace(".", "__"): key for key in setting_keys()}
    for variable, text in sorted(environment.items()):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or name in OPTION_VARIABLES:
            continue
        if name not in known:
            raise SettingsError(
                "variable-unknown",
                f"The environment variable {variable} names no setting.",
                hint=_did_you_mean(name, [*known, *OPTION_VARIABLES], ENVIRONMENT_PREFIX),
            )
        document = document.with_text(tuple(known[name].split(".")), text, variable)
    return document


def setting_keys(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Yield every key that can be set, with dots between its parts."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _settings_error(error: ValidationError, document: Document) -> SettingsError:
    found = error.errors(include_url=False)
    # Rules that are missing are told of when nothing else is wrong: with a mistyped key they are the same mistake.
    others = [each for each in found if (each["type"], each["loc"]) != ("missing", ("rules",))]
    problems = [_problem(details, document) for details in others or found]
    sentences = [f"{place}: {sentence}" for place, sentence, _ in problems]
    hint = next((hint for _, _, hint in problems if hint), "")
    if len(sentences) == 1:
        return SettingsError("settings-invalid", f"{sentences[0]}.", hint=hint)
    more = len(sentences) - _MOST_SHOWN
    return SettingsError(
        "settings-invalid",
        f"{document.source} has {len(sentences)} mistakes.",
        context=[*sentences[:_MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])],
        hint=hint,
    )


def _problem(details: Any, document: Document) -> tuple[str, str, str]:  # noqa: ANN401 - pydantic's ErrorDetails
    """Return where one problem is, what it is, and what helps."""
    location = details["loc"]
    place = document.place(location)
    key = ".".join(str(part) for part in location if isinstance(part, str))
    sentence, hint = f"`{key}`: {details['msg'][0].lower()}{details['msg'][1:]}, not {details['input']!r}", ""
    match details["type"]:
        case "extra_forbidden":
            near = [known.rpartition(".")[2] for known in _siblings_of(location)]
            sentence, hint = f"`{key}` is no setting", _did_you_mean(str(location[-1]), near, "")
        case "missing" if location == ("rules",):
            sentence = "`rules` is missing, so it is not known what to allow"
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


def _siblings_of(location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that could stand where an unknown one stands."""
    if location[0] == "rules" and len(location) > 1:
        return list(RuleEntry.model_fields)
    section: type[BaseModel] = Settings
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return list(section.model_fields)


def _did_you_mean(word: str, known: list[str], prefix: str) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return (
        f"Did you mean `{prefix}{near[0]}`?"
        if near
        else f"Known are: {', '.join(sorted(prefix + k for k in known))}."
    )
