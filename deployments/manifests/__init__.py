"""What must Kubernetes be told, so that a fleet runs there? Read by `headrace k8s render`; nothing here needs Ray."""

from deployments.manifests.names import CACHE
from deployments.manifests.places import PLACES, Place, Unfit
from deployments.manifests.tree import MADE, render

__all__ = ["CACHE", "MADE", "PLACES", "Place", "Unfit", "render"]
