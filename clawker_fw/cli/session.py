"""The settings and the engine that the options choose, as every command has them, and their comparison."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clawker_fw import interrupts
from clawker_fw.cli import deciding
from clawker_fw.cli.parameters import Options
from clawker_fw.errors import ExitCode, RefusedError, SettingsError, unreadable_settings
from clawker_fw.report import terminal
from clawker_fw.settings.files import bounded, may_exist
from clawker_fw.settings.find import DEFAULT_PROJECT

if TYPE_CHECKING:
    from clawker_fw.certificates.store import InspectionStore, TelemetryStore
    from clawker_fw.diagnose.explanation import Explainer
    from clawker_fw.engine.locate import EngineLocation
    from clawker_fw.engine.port import EngineReader, EngineWriter
    from clawker_fw.model.engines import EngineFacts
    from clawker_fw.reconcile.desired import Blueprint
    from clawker_fw.reconcile.pipeline import Comparison
    from clawker_fw.report.text import Renderable
    from clawker_fw.rules.review import Remark
    from clawker_fw.settings.loaded import Loaded
    from clawker_fw.settings.secrets.vault import Vault
    from clawker_fw.settings.secrets.wanted import WantedSecret
    from clawker_fw.stack.release import Release
    from clawker_fw.watch.last_good import Texts

_MOST_WARNINGS = 10


def reading(
    chosen: Options, loaded: "Loaded | None" = None, engine: "EngineWriter | None" = None
) -> "tuple[EngineReader, Comparison]":
    """Compare the stack with its settings, for a command that changes nothing: it gets no writer.

    `loaded` are settings that were read before, and reviewed. `engine` is one that is connected already.
    """
    engine, _, seen = _comparing(chosen, loaded, engine, writes=False, reviews=loaded is None)
    return engine, seen


def attaching(chosen: Options) -> "tuple[EngineWriter, Comparison]":
    """Compare the stack with its settings, for a command that changes nothing of it: it makes what agents need."""
    engine, _, seen = _comparing(chosen, writes=False)
    return engine, seen


def writing(
    chosen: Options, *, reviews: bool = True
) -> "tuple[EngineWriter, Callable[[], Blueprint], Comparison]":
    """Compare the stack with its settings: return the engine, what reads the settings again, and the result.

    The settings are read again under the lock, because they may change while a run waits for it. `reviews` warns
    of rules that decide nothing.
    """
    return _comparing(chosen, writes=True, reviews=reviews)


def _comparing(
    chosen: Options,
    loaded: "Loaded | None" = None,
    engine: "EngineWriter | None" = None,
    *,
    writes: bool,
    reviews: bool = True,
) -> "tuple[EngineWriter, Callable[[], Blueprint], Comparison]":
    """Compare the stack with its settings, of which a mistake is reported before any error of the engine."""
    from clawker_fw.reconcile import pipeline
    from clawker_fw.rules.review import review
    from clawker_fw.stack.release import Release

    loaded = loaded or load(chosen)
    if reviews:
        warn_of_rules(review(loaded.rules, time.time()))
    engine, release = engine or connect_engine(chosen), Release.installed()

    def drawn(settings: "Loaded | None" = None) -> "Blueprint":
        return blueprint(chosen, settings or load(chosen), release, engine.facts(), keeps=writes)

    return engine, drawn, pipeline.compare(engine, drawn(loaded))


def connect_engine(chosen: Options) -> "EngineWriter":
    """Connect to the engine that the options choose, to change something."""
    from clawker_fw.engine.docker import connect

    return connect(chosen.host, chosen.context, os.environ)


def connect_reader(chosen: Options) -> "EngineReader":
    """Connect to the engine that the options choose, to look only."""
    return connect_engine(chosen)


def connect_place(place: "EngineLocation", seconds: float) -> "EngineReader":
    """Connect to the engine at a place, to look only: one of many hosts."""
    from clawker_fw.engine.docker import connect_to

    return connect_to(place, seconds)


def print_report(report: "Renderable") -> None:
    """Print an answer for people."""
    from clawker_fw.report import text

    text.console().print(report)


def print_table(headings: "Sequence[str]", rows: "Sequence[Sequence[str]]") -> None:
    """Print a table for people."""
    from clawker_fw.report import text

    print_report(text.Rows(headings, rows))


def print_json(document: object) -> None:
    """Print an answer in JSON."""
    from clawker_fw.report import documents

    terminal.answer(documents.text(document))


def load(chosen: Options) -> "Loaded":
    """Read the settings of the chosen project.

    Raises:
        SettingsError: when the settings are invalid, or the file is for another project than was first read.
    """
    from clawker_fw.settings.validation import load_settings

    loaded = load_settings(chosen.config, os.environ)
    meant = loaded.settings.project
    if not chosen.named_project and (meant or DEFAULT_PROJECT) != chosen.project:
        raise SettingsError(
            "project-changed",
            f"{loaded.source} is for project {meant or DEFAULT_PROJECT}, this command for {chosen.project}.",
            hint="Write `project: NAME` on a line of its own, without indentation. "
            "After a change of the project, restart `clawker-fw watch`.",
        )
    return loaded


def explainer(chosen: Options, loaded: "Loaded", now: float) -> "Explainer":
    """Return what explains the rules, and advises commands for the same stack. `now` is in seconds since 1970."""
    from clawker_fw.diagnose.explanation import Explainer
    from clawker_fw.settings.edit import rules_file

    variable, editable = loaded.rules_variable, None
    if not variable:
        try:
            editable = rules_file.editable(chosen.config, os.environ)
        except SettingsError:  # there is no file
            variable = "the settings"
    return Explainer(loaded.rules, now, variable, loaded.promises, editable=editable, options=chosen.words)


def last_good(chosen: Options) -> Path:
    """Return where a watcher keeps the last good settings of the chosen project."""
    return _folder(chosen) / "last-good.json"


def warn_of_rules(remarks: "Sequence[Remark]") -> None:
    """Warn of rules that decide nothing: of each of the first ten, and of how many more there are."""
    for each in remarks[:_MOST_WARNINGS]:
        warn(each.code.replace("-", "_"), message=f"{each}.")
    if (more := len(remarks) - _MOST_WARNINGS) > 0:
        warn("rules_more", message=f"{more:,} more rules decide nothing; `clawker-fw rules check` lists all.")


def named_by(chosen: Options, loaded: "Loaded") -> str:
    """Return what chose the settings file: an option, a variable, or the place where it was found."""
    return loaded.found or chosen.given.get("config", "--config")


def blueprint(
    chosen: Options,
    loaded: "Loaded",
    release: "Release",
    facts: "EngineFacts",
    *,
    keeps: bool = False,
    texts: "Texts | None" = None,
) -> "Blueprint":
    """Return the blueprint of the stack for these settings. `keeps` has new certificates written down.

    `texts` are earlier ones: the files that they stand for are not read now.
    """
    from clawker_fw.reconcile.desired import Blueprint
    from clawker_fw.reconcile.records import origin

    facts = replace(facts, named_by=chosen.given.get("host", facts.named_by))
    known, needed = secrets(chosen, loaded, texts)
    if known and facts.plain:
        raise RefusedError(
            "secret-over-plain-engine",
            f"Rules put secrets into requests, and others can read what is sent to {facts.endpoint}.",
            context=[f"named by {facts.named_by}"],
            hint="Reach the engine over ssh (`ssh://USER@HOST`), or by TLS (DOCKER_TLS_VERIFY=1).",
        )
    own = deciding.beside(loaded, loaded.settings.inspection.ca_file)
    made_from = origin(loaded.source, loaded.settings.project, loaded.digest, loaded.presets, facts.inside)
    return Blueprint(
        chosen.project,
        loaded.settings,
        loaded.rules.at(time.time()),
        release,
        facts,
        certificates=certificates(chosen, loaded, keeps=keeps),
        provider=inspection_store(chosen, keeps=keeps) if any(each.paths for each in loaded.rules.rules) else None,
        authorities=texts.authorities if texts else _authorities(own) if own else b"",
        wanted=needed,
        headers=known.declared.headers if known else {},
        vault=known,
        origin=made_from,
        files=deciding.files(chosen, loaded, known, needed, release),
        named_by=named_by(chosen, loaded),
    )


def vault(chosen: Options) -> "Vault":
    """Return the user's secrets.

    Raises:
        RefusedError: when somebody else can use the file that declares them.
        SettingsError: when it can't be read.
    """
    from clawker_fw.settings.secrets.declared import default_path
    from clawker_fw.settings.secrets.vault import opened

    return opened((chosen.secrets or default_path()).absolute())


def secrets(
    chosen: Options, loaded: "Loaded", texts: "Texts | None" = None
) -> "tuple[Vault | None, tuple[WantedSecret, ...]]":
    """Return the user's secrets, and which of them the rules put into requests. Nothing, if no rule does.

    `texts` are earlier ones, in which the user's file is as it was.

    Raises:
        RefusedError: when the user's file does not let one go where a rule would send it.
        SettingsError: when the file can't be read.
    """
    from clawker_fw.rules.ruleset import injecting

    if not any(injecting(loaded.rules.rules)):
        return None, ()
    from clawker_fw.settings.secrets.vault import known
    from clawker_fw.settings.secrets.wanted import wanted

    earlier = texts.secrets if texts else None
    found = known(earlier.path, earlier.content) if earlier else vault(chosen)
    return found, wanted(loaded.rules.rules, found.declared, found.path)


def check_secrets(chosen: Options, loaded: "Loaded") -> "tuple[Remark, ...]":
    """Require that secrets may go where rules would send them, or return a remark on each rule where nobody knows.

    Raises:
        RefusedError: when the user's file does not let one go there.
        SettingsError: when the file can't be read.
    """
    from clawker_fw.rules.review import Remark, RemarkCode
    from clawker_fw.rules.ruleset import injecting
    from clawker_fw.settings.secrets.declared import default_path

    path = chosen.secrets or default_path()
    if chosen.secrets or may_exist(path):
        secrets(chosen, loaded)
        return ()
    reason = f"needs a secret, and {path} is not here to say where it may go"
    return tuple(Remark(RemarkCode.SECRET_UNCHECKED, rule, reason) for rule, _ in injecting(loaded.rules.rules))


def certificates(chosen: Options, loaded: "Loaded", *, keeps: bool) -> "TelemetryStore | None":
    """Return the certificates for telemetry, or None if the settings name no collector."""
    return telemetry_store(chosen, loaded, keeps=keeps) if loaded.settings.otel.endpoint else None


def telemetry_store(chosen: Options, loaded: "Loaded", *, keeps: bool) -> "TelemetryStore":
    """Return the place of the chosen project's certificates for telemetry."""
    from clawker_fw.certificates.store import TelemetryStore

    own = deciding.beside(loaded, loaded.settings.otel.certs_dir)
    return TelemetryStore(_folder(chosen), chosen.project, keeps, own=own)


def inspection_store(chosen: Options, *, keeps: bool) -> "InspectionStore":
    """Return the place of the chosen project's roots."""
    from clawker_fw.certificates.store import InspectionStore

    return InspectionStore(_folder(chosen), chosen.project, keeps)


def _folder(chosen: Options) -> Path:
    from clawker_fw.private_files import state_folder

    return state_folder() / chosen.project


def _authorities(path: Path) -> bytes:
    """Return the certificates in a file, of which there must be some."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        content = bounded(path)
        found = x509.load_pem_x509_certificates(content)
    except OSError as error:
        raise unreadable_settings(path, error) from error
    except ValueError as error:
        raise SettingsError(
            "ca-file-invalid",
            f"{path} has no certificates that can be read: {error}.",
            hint="`inspection.ca_file` names a file with certificates of authorities, as PEM.",
        ) from error
    # Just these: a key in the same file stays where it is.
    return b"".join(each.public_bytes(Encoding.PEM) for each in found)


@contextmanager
def stoppable(then: Callable[[], object], *signals: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Let signals stop what is done after its current step, and yield what tells whether one has come.

    `then` is called when one comes. A second Ctrl-C ends the program.
    """
    asked = threading.Event()

    def stop(number: int, _: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            terminal.show_cursor()
            os._exit(ExitCode.INTERRUPTED)
        asked.set()
        then()

    with interrupts.handled(stop, *signals):
        yield asked.is_set


def warn_of_exposure(seen: "Comparison") -> None:
    """Warn when an agent could change the settings that are about to be applied."""
    from clawker_fw.agents.exposure import HINT, exposures

    for each in exposures(seen.observed, seen.blueprint.files):
        warn(
            "settings_open",
            message=f"{each}.",
            container=each.container,
            mount=each.source,
            target=each.target,
            file=each.file,
            hint=HINT,
        )


def warn(event: str, **fields: str) -> None:
    """Warn: the fields have a `message` for people."""
    logging.getLogger("clawker_fw").warning(event, extra={"fields": fields})
