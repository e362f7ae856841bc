"""What may a fleet file hold, in a form that editors understand?"""

import json


def schema() -> str:
    """The JSON schema of fleet.yaml."""
    from deployments.fleet import Fleet

    return json.dumps(Fleet.model_json_schema(), indent=2)
