"""The JSON schema for editors marks exactly the mistakes that the program refuses."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from clawker_fw.errors import SettingsError
from clawker_fw.rules.schema import FIELDS
from clawker_fw.settings.example import example
from clawker_fw.settings.model import setting_keys
from clawker_fw.settings.sources import Source
from clawker_fw.settings.validation import validated
from devkit import settings_schema
from devkit.stacks import CHECKOUT

PAGES = (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md")))
DIGEST = "sha256:" + "a" * 64


class EditorLoader(yaml.SafeLoader):
    """YAML 1.2 as editors read it: times are text, and only `true` and `false` are booleans."""


EditorLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if not tag.endswith((":timestamp", ":bool"))]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
EditorLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


@cache
def validator() -> Draft7Validator:
    return Draft7Validator(settings_schema.schema())


def marked(text: str) -> list[str]:
    """Return the mistakes that an editor marks in a settings file."""
    values = yaml.load(text, Loader=EditorLoader)  # noqa: S506 - a SafeLoader
    return [each.message for each in validator().iter_errors(values)]


def refused(text: str) -> str:
    """Return the program's error for an unusable settings file."""
    try:
        validated((Source(Path("file"), text),), "", {})
    except SettingsError as error:
        return error.message
    return ""


def test_the_schema_is_one() -> None:
    """The schema is valid, and describes every setting and every field of a rule."""
    schema = settings_schema.schema()
    Draft7Validator.check_schema(schema)
    for key in setting_keys():
        place = schema
        for part in key.split("."):
            place = place["properties"][part]
        assert place["description"]
    assert set(schema["properties"]["rules"]["items"]["properties"]) == set(FIELDS)


def test_the_file_that_init_writes_names_the_schema() -> None:
    """The first line tells editors where the schema is published: in the package's repository."""
    first = example().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={settings_schema.address()}"


def examples() -> list[Any]:
    """Return every settings file, or part of one, in the documentation."""
    found = {"init": example(), "demo": (CHECKOUT / "examples" / "demo.yaml").read_text("utf-8")}
    keys = {key.partition(".")[0] for key in setting_keys()}
    for page in PAGES:
        for number, block in enumerate(
            re.findall(r"^ *```yaml\n(.*?)^ *```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        ):
            text = re.sub("sha256:…", DIGEST, block)
            values = yaml.safe_load(text)
            if isinstance(values, dict) and values.keys() <= keys:
                found[f"{page.stem} {number}"] = text if "rules" in values else f"rules: []\n{text}"
    return [pytest.param(text, id=name) for name, text in found.items()]


@pytest.mark.parametrize("text", examples())
def test_no_example_is_marked(text: str) -> None:
    """The documentation's examples are understood and have no marks in an editor."""
    assert "include" in text or not refused(text)
    assert marked(text) == []


def test_the_whole_example_is_not_marked() -> None:
    """The file that `init` writes has no marks, even with all settings enabled."""
    whole = "\n".join(re.sub(r"^(\s*)#(?! )", r"\1", line) for line in example().splitlines())
    assert "team.yaml" in yaml.safe_load(whole)["include"]
    assert marked(whole) == []


WRONG = (
    "rules: [{dst: }]",
    "rules: [{dst: 'https://a.test'}]",
    "rules: [{dst: 'a.test:443'}]",
    "rules: [{dst: '*.a.test'}]",
    "rules: [{dst: a.test, port: '443'}]",
    "rules: [{dst: a.test, action: refuse}]",
    "rules: [{dst: a.test, allow_private: 'true'}]",
    "rules: [{dst: a.test, until: 2099-01-31}]",
    f"rules: [{{dst: a.test, note: {'x' * 201}}}]",
    "rules: [{dst: a.test, git: {a/b: push}}]",
    "rules: [{dst: a.test, ports: 80}]",
    "{rules: [], rule: []}",
    "{rules: [], otel: {infra-port: 1}}",
    "{rules: [], otel: {certs_dir: ''}}",
    "{rules: [], images: {envoy: 'envoyproxy/envoy:v1.40.0'}}",
    "{rules: [], project: Upper}",
    "{rules: [], drain_timeout: 2d}",
    "{rules: [], limits: {idle: 5}}",
    "{rules: [], resources: {envoy: {memory: 2GB}}}",
    "{rules: [], include: team.yaml}",
    "presets: [pipp]",
    "presets: [{preset: pip}]",
    "{rules: [], never: ['*.a.test']}",
)


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_marked(text: str) -> None:
    """What the program refuses is marked in an editor."""
    assert refused(text)
    assert marked(text)
