"""What does Serve's REST say and do? Deployment, details, deletion; on the dashboard's port, by token."""

import json
from pathlib import Path
from typing import Any

import httpx

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
    """A client of one Ray head."""

    def __init__(self, dashboard_url: str, token: Path) -> None:
        self._http = httpx.Client(
            base_url=dashboard_url,
            headers={"Authorization": f"Bearer {token.read_text().strip()}"},
            timeout=10.0,
            trust_env=False,
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

    def applications(self) -> dict[str, Any]:
        """Serve's details of each application, by name; none while it doesn't answer."""
        try:
            return self._http.get(APPLICATIONS).raise_for_status().json()["applications"]
        except (httpx.HTTPError, json.JSONDecodeError, KeyError):
            return {}

    def delete(self, timeout_s: float) -> bool:
        """Deletes every application, its streams first; False when they did not end within `timeout_s`."""
        try:
            return self._http.delete(APPLICATIONS, timeout=timeout_s).status_code == 200
        except httpx.HTTPError:
            return False
