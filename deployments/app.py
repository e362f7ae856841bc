"""What does Serve build from a fleet? Serve imports `build` by name; its annotation must stay a class at run time."""

from ray.serve import Application

from deployments.declare import engine_name, engine_options, engines_at_most, router_options
from deployments.engine import Engine
from deployments.fleet import Fleet
from deployments.router import Router


def build(fleet: Fleet) -> Application:
    """One application: the router, and an engine deployment for each model (sources are folders by now)."""
    sharers = engines_at_most(fleet)
    engines = {
        model.name: Engine.options(name=engine_name(model.name), **engine_options(model)).bind(model, sharers)
        for model in fleet.models
    }
    return Router.options(name="router", **router_options(fleet)).bind(fleet, engines)
