"""Which of a router's routes are answered by engines, whoever asks?"""

from deployments import forward
from deployments.bill import Journal
from deployments.call_routes import CallRoutes
from deployments.desks import Desks
from deployments.fleet import RouterSettings
from deployments.in_process import Route
from deployments.router_metrics import RouterMetrics
from deployments.text_routes import TextRoutes
from deployments.tolls import Tolls


def answering(
    desks: Desks, metrics: RouterMetrics, settings: RouterSettings, journal: Journal | None, tolls: Tolls | None
) -> dict[str, Route]:
    """By path; all take POST."""
    calls = CallRoutes(desks, metrics, settings, journal, tolls)
    texts = TextRoutes(desks, metrics, settings, calls.pass_on, journal, tolls)
    return {
        **dict.fromkeys(forward.ROUTES, calls.take),
        "/v1/chat/completions": texts.chat,
        "/v1/completions": texts.complete,
    }
