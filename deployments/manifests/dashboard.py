"""What should a screen show of a fleet? A dashboard for Grafana, from metrics that routers export."""

from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 12, 8
ONE = 'model=~"$model"'
QUANTILES = (0.5, 0.95, 0.99)


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it."""
    panels = [
        *_users(),
        *_load(),
        *_replicas(),
        *_tenants(),
    ]
    return {
        "uid": "headrace",
        "title": "Headrace",
        "tags": ["headrace"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "model",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": "label_values(headrace_queued_requests, model)",
                    "includeAll": True,
                    "multi": True,
                    "refresh": 2,
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": [panel | _at(i) for i, panel in enumerate(panels)],
    }


def _users() -> list[dict[str, Any]]:
    missed, ended = (f"sum by (model) (rate(headrace_{name}_total{{{ONE}}}[5m]))" for name in ("missed", "requests"))
    return [
        _panel(
            "Requests that ended",
            "reqps",
            ("{{model}} {{outcome}}", f"sum by (model, outcome) (rate(headrace_requests_total{{{ONE}}}[5m]))"),
        ),
        _panel("Share that missed the targets", "percentunit", ("{{model}}", f"{missed} / {ended}")),
        _panel("Time to the first token", "s", *_quantiles("headrace_time_to_first_token_seconds")),
        _panel("Time from token to token", "s", *_quantiles("headrace_time_per_output_token_seconds")),
        _panel("Refused, by status", "reqps", ("{{status}}", "sum by (status) (rate(headrace_refusals_total[5m]))")),
        _panel(
            "Begun again, and gone on, at another replica",
            "reqps",
            ("{{model}} begun again", f"sum by (model) (rate(headrace_retries_total{{{ONE}}}[5m]))"),
            ("{{model}} gone on", f"sum by (model) (rate(headrace_continuations_total{{{ONE}}}[5m]))"),
        ),
    ]


def _load() -> list[dict[str, Any]]:
    return [
        _panel(
            "Tokens",
            "short",
            ("{{model}} read, a second", f"sum by (model) (rate(headrace_prompt_tokens_total{{{ONE}}}[5m]))"),
            ("{{model}} written, a second", f"sum by (model) (rate(headrace_output_tokens_total{{{ONE}}}[5m]))"),
        ),
        _panel(
            "Requests in hand",
            "short",
            ("{{model}} being answered", f"sum by (model) (headrace_open_requests{{{ONE}}})"),
            ("{{model}} waiting", f"sum by (model) (headrace_queued_requests{{{ONE}}})"),
        ),
    ]


def _replicas() -> list[dict[str, Any]]:
    held, free = (f"max by (replica) (headrace_replica_kv_{name}tokens{{{ONE}}})" for name in ("", "free_"))
    serving = f"max by (model, replica) (headrace_replica_draining{{{ONE}}}) == 0"
    return [
        _panel(
            "Replicas",
            "short",
            ("{{model}} take requests", f"count by (model) ({serving})"),
            ("{{model}} wanted", f"max by (model) (headrace_wanted_replicas{{{ONE}}})"),
        ),
        _panel(
            "Requests in engines",
            "short",
            ("{{replica}} running", f"max by (replica) (headrace_replica_running_requests{{{ONE}}})"),
            ("{{replica}} waiting", f"max by (replica) (headrace_replica_waiting_requests{{{ONE}}})"),
        ),
        _panel("Cache in use", "percentunit", ("{{replica}}", f"{held} / ({held} + {free})")),
        _panel(
            "Seconds since a busy engine's last step",
            "s",
            ("{{replica}}", f"max by (replica) (headrace_replica_step_age_s{{{ONE}}})"),
        ),
    ]


def _tenants() -> list[dict[str, Any]]:
    waits = f"sum by (tier, le) (rate(headrace_wait_seconds_bucket{{{ONE}}}[5m]))"
    return [
        _panel(
            "Tokens written, by tenant",
            "short",
            ("{{tenant}}", f"sum by (tenant) (rate(headrace_tenant_output_tokens_total{{{ONE}}}[5m]))"),
        ),
        _panel("Waits, by tier: 95 of 100", "s", ("{{tier}}", f"histogram_quantile(0.95, {waits})")),
    ]


def _quantiles(metric: str) -> list[tuple[str, str]]:
    buckets = f"sum by (model, le) (rate({metric}_bucket{{{ONE}}}[5m]))"
    return [
        (f"{{{{model}}}} {quantile:.0%} of requests", f"histogram_quantile({quantile}, {buckets})")
        for quantile in QUANTILES
    ]


def _panel(title: str, unit: str, *lines: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": expression, "legendFormat": legend}
            for i, (legend, expression) in enumerate(lines)
        ],
    }


def _at(i: int) -> dict[str, Any]:
    return {"id": i + 1, "gridPos": {"x": WIDTH * (i % 2), "y": HEIGHT * (i // 2), "w": WIDTH, "h": HEIGHT}}
