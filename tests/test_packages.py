"""Do the packages keep to their rules: who may import what, and what is shipped?

The arrows between packages are import-linter's (`make check`); these are the rules that it can't state.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
PURE = ("autoscaling", "cluster", "routing")
IMPURE = (Path("cluster/inventory.py"), Path("cluster/launch.py"))


def test_the_pure_packages_load_and_the_policy_is_found_without_any_installed_package() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import autoscaling, cluster, routing"
    subprocess.run([sys.executable, "-I", "-S", "-c", f"{code}; autoscaling.ServePolicy"], check=True)


@pytest.mark.parametrize("package", PURE)
def test_a_pure_package_imports_the_standard_library_and_itself_only(package: str) -> None:
    allowed = {*sys.stdlib_module_names, package}
    modules = [path for path in (ROOT / package).rglob("*.py") if path.relative_to(ROOT) not in IMPURE]
    strays = {(path.name, name) for path in modules for name in _imported(path) if name not in allowed}
    assert strays == set()


def test_serve_sees_a_class_and_not_its_name_where_it_checks_the_arguments_of_the_application() -> None:
    tree = ast.parse((ROOT / "deployments" / "app.py").read_text())
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert futures == []


def test_the_packages_are_ours_and_no_other_installed_project_claims_their_names() -> None:
    claimed = packages_distributions()  # half a second: it reads the files of all that is installed
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin == str(ROOT / package / "__init__.py")
        assert set(claimed.get(package, [])) <= {"headrace"}


def test_the_wheel_holds_the_named_packages_and_nothing_else(tmp_path: Path) -> None:
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    tops = {name.split("/")[0] for name in ZipFile(wheel).namelist()}
    assert tops == {*PACKAGES, f"headrace-{PROJECT['project']['version']}.dist-info"}


def test_every_requirement_of_the_project_has_a_locked_version() -> None:
    locked = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    groups = PROJECT["dependency-groups"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(name for part in (*extras, *groups) for name in part)]
    assert {re.split(r"[\[=<>]", requirement)[0] for requirement in wanted} - locked == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_first_which_question_it_answers(package: str) -> None:
    docstrings = {path: ast.get_docstring(ast.parse(path.read_text())) for path in (ROOT / package).rglob("*.py")}
    silent = [path for path, text in docstrings.items() if "?" not in (text or "").split("\n")[0]]
    assert [str(path.relative_to(ROOT)) for path in silent if not path.stem.startswith("__")] == []


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
