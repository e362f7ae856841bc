"""What does Serve build from a fleet? Serve imports `build` by name; its annotation must stay a class at run time."""

from typing import Any

from ray.serve import Application

from deployments.declare import engine_name, engine_options, engines_at_most, router_options
from deployments.engine import Engine
from deployments.fleet import Fleet
from deployments.router import Router

# Serve's decorator hides from type checkers that these are deployments.
ENGINE: Any = Engine
ROUTER: Any = Router


def build(fleet: Fleet) -> Application:
    """One application: the router, and an engine deployment for each model and variant (sources are folders by now)."""
    sharers = engines_at_most(fleet)
    engines = {
        engine.name: ENGINE.options(
            name=engine_name(engine.name), **engine_options(engine, fleet.router, fleet.scaling)
        ).bind(engine.model_copy(update={"name": model.name}), sharers)
        for model in fleet.models
        for engine in model.engines
    }
    return ROUTER.options(name="router", **router_options(fleet)).bind(fleet, engines)
