"""How many replicas should there be, and why?

Pure: it imports the standard library and itself only, so that Serve can ship it by value.
"""

from autoscaling.decide import Decision, Targets, decide
from autoscaling.fleet import Fleet, ReplicaLoad
from autoscaling.memory import Memory, Wish
from autoscaling.serve_policy import ServePolicy

__all__ = ["Decision", "Fleet", "Memory", "ReplicaLoad", "ServePolicy", "Targets", "Wish", "decide"]
