"""What of a custom resource's definition is needed to validate one?

Prints it, compressed: `python prune.py ray.io_rayservices.yaml > rayservice-v1.json.gz`.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml


def without_descriptions(node: Any) -> Any:
    """The schema without its prose; a property that is called `description` stays."""
    if isinstance(node, list):
        return [without_descriptions(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: without_descriptions(value)
        for key, value in node.items()
        if key != "description" or not isinstance(value, str)
    }


def prune(definition: dict[str, Any]) -> bytes:
    """The v1 schema without prose and without the status, which only the operator writes."""
    (version,) = (one for one in definition["spec"]["versions"] if one["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]
    del schema["properties"]["status"]
    text = json.dumps(without_descriptions(schema), sort_keys=True, separators=(",", ":"))
    return gzip.compress(text.encode(), mtime=0)


if __name__ == "__main__":
    sys.stdout.buffer.write(prune(yaml.safe_load(Path(sys.argv[1]).read_text())))
