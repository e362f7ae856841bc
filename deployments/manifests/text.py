"""How is a value written as YAML that people read, and kustomize merges?"""

from typing import Any

import yaml


def dump(*documents: Any) -> str:
    """The documents, parted by lines if there are several."""
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, width=120, explicit_start=len(documents) > 1, allow_unicode=True
    )


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stay readable, and nothing is said by reference: merges would lose it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
