"""The values that the five verbs pass to each other. They are frozen and comparable, and make no decisions.

This package contains the terms of the design (sibling, layer, finding) and the types of what is read from and
written to an engine. It must not contain I/O, rendering or comparisons.
"""

from clawker_fw.model.desired import (
    ContainerSpec,
    Desired,
    DesiredSibling,
    Healthcheck,
    Image,
    Mount,
    NetworkSpec,
    Origin,
    Rules,
    Shape,
    Slots,
    version_of,
)
from clawker_fw.model.difference import Diff, Finding
from clawker_fw.model.files import File, Files
from clawker_fw.model.observed import (
    NO_RECORDS,
    Attempt,
    ContainerSummary,
    ContainerView,
    Endpoint,
    EngineFacts,
    Event,
    ImageView,
    Machine,
    NetworkView,
    Observed,
    ObservedSibling,
    OwnImage,
    Probe,
    Records,
    Refused,
)
from clawker_fw.model.reach import Address, Lookup, Trial, TrialStep
from clawker_fw.model.vocabulary import Action, Cause, Layer, Role, Sibling, Value, Verdict

__all__ = [
    "NO_RECORDS",
    "Action",
    "Address",
    "Attempt",
    "Cause",
    "ContainerSpec",
    "ContainerSummary",
    "ContainerView",
    "Desired",
    "DesiredSibling",
    "Diff",
    "Endpoint",
    "EngineFacts",
    "Event",
    "File",
    "Files",
    "Finding",
    "Healthcheck",
    "Image",
    "ImageView",
    "Layer",
    "Lookup",
    "Machine",
    "Mount",
    "NetworkSpec",
    "NetworkView",
    "Observed",
    "ObservedSibling",
    "Origin",
    "OwnImage",
    "Probe",
    "Records",
    "Refused",
    "Role",
    "Rules",
    "Shape",
    "Sibling",
    "Slots",
    "Trial",
    "TrialStep",
    "Value",
    "Verdict",
    "version_of",
]
