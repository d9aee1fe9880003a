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
    ShippedPreset,
    Slots,
    version_of,
)
from clawker_fw.model.difference import Diff, Finding
from clawker_fw.model.files import File, Files
from clawker_fw.model.observed import (
    ATTACHED,
    NO_RECORDS,
    Attempt,
    ContainerSummary,
    ContainerView,
    Endpoint,
    EngineFacts,
    Event,
    FoundAddress,
    ImageView,
    Inside,
    Lookup,
    Machine,
    NetworkView,
    Observed,
    ObservedRelay,
    ObservedSibling,
    OwnImage,
    Probe,
    Records,
    Refused,
    Restart,
    SecretDifference,
    ServerCertificate,
    Swarm,
    SwarmNode,
    SwarmTask,
    Trial,
    TrialStep,
    Usage,
    Use,
    VolumeView,
)
from clawker_fw.model.vocabulary import CLOSING, RELAYING, Action, Cause, Layer, Role, Sibling, Value, Verdict
