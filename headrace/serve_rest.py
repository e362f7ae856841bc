"""What does Serve's REST say and do? Deployment, details, deletion; on the dashboard's port, by token."""

from typing import Any

import httpx

from cluster.node_room import Node
from cluster.runs import Run
from headrace.authorities import authorities
from headrace.failure import Failure

APPLICATIONS = "/api/serve/applications/"
DEPLOY_TIMEOUT_S = 300.0
"""The first deployment starts Serve's controller before it answers."""


class ServeRefused(RuntimeError):
    """Serve answered with an error; its text holds Serve's own words."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(answer.text)
        self.may_be_dying = answer.is_server_error
        """It was not the request's fault: a Ray that loses its parts answers so too."""


class ServeRest:
    """A client of one Ray head; without a token where that asks for none."""

    def __init__(self, dashboard_url: str, token: str | None) -> None:
        self.url = dashboard_url
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        known = authorities(dashboard_url)
        self._http = httpx.Client(
            base_url=dashboard_url, headers=self.headers, timeout=10.0, trust_env=False, verify=known
        )

    def close(self) -> None:
        """Gives its connections up."""
        self._http.close()

    def is_up(self) -> bool:
        """Whether the dashboard answers."""
        try:
            return self._http.get("/api/ray/version").status_code == 200
        except httpx.HTTPError:
            return False

    def deploy(self, schema: dict[str, Any]) -> None:
        """Makes Serve run what a ServeDeploySchema says. Raises ServeRefused."""
        answer = self._http.put(APPLICATIONS, json=schema, timeout=DEPLOY_TIMEOUT_S)
        if answer.status_code != 200:
            raise ServeRefused(answer)

    def details(self) -> dict[str, Any]:
        """Serve's details of each application, by name. Raises httpx.HTTPError, ValueError or KeyError."""
        return self._http.get(APPLICATIONS).raise_for_status().json()["applications"]

    def applications(self) -> dict[str, Any]:
        """The same; none while it doesn't answer."""
        try:
            return self.details()
        except (httpx.HTTPError, ValueError, KeyError):
            return {}

    def nodes(self) -> tuple[Node, ...]:
        """Nodes that are alive, with all that they have. Raises httpx.HTTPError, KeyError, TypeError or ValueError."""
        answer = self._http.get("/api/v0/nodes", params={"detail": "1"}).raise_for_status().json()
        alive = [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]
        return tuple(
            Node(
                name=f"{node['node_ip']} ({node['node_id'][:6]})",
                amounts=node["resources_total"],
                labels=node.get("labels") or {},
            )
            for node in alive
        )

    def delete(self, timeout_s: float) -> bool:
        """Deletes every application, its streams first; False when they did not end within `timeout_s`."""
        try:
            return self._http.delete(APPLICATIONS, timeout=timeout_s).status_code == 200
        except httpx.HTTPError:
            return False


def of_run(run: Run) -> ServeRest:
    """A client of a run's Ray. Raises Failure when that does not run yet."""
    if run.dashboard_url is None:
        raise Failure(f"run {run.name!r} is just starting: its Ray does not run yet")
    return ServeRest(run.dashboard_url, run.token.read_text().strip())
