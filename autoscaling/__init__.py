"""How many replicas should there be, and why?

Pure: it imports the standard library and itself only, so that Serve can ship it by value.
"""

from autoscaling.capacity import Capacity
from autoscaling.decide import decide
from autoscaling.decision import Decision, Outlook
from autoscaling.fleet import Fleet, ReplicaLoad
from autoscaling.journal import NAME as JOURNAL
from autoscaling.journal import START, Cursor, Entry
from autoscaling.memory import Memory, Wish
from autoscaling.serve_policy import ENGINE_PREFIX, ServePolicy
from autoscaling.step_costs import StepCosts, StepFit
from autoscaling.targets import Targets
from autoscaling.traffic import Tally, Traffic

__all__ = [
    "ENGINE_PREFIX",
    "JOURNAL",
    "START",
    "Capacity",
    "Cursor",
    "Decision",
    "Entry",
    "Fleet",
    "Memory",
    "Outlook",
    "ReplicaLoad",
    "ServePolicy",
    "StepCosts",
    "StepFit",
    "Tally",
    "Targets",
    "Traffic",
    "Wish",
    "decide",
]
