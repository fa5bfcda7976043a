"""What setup.py admits is what was tested: the versions of the constraints, and no later series."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
BY_SOMEBODY_ELSE = {"zarr"}
"""Only gunpowder imports it, and says which series it takes."""


def declared() -> list[Requirement]:
    lists = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.List)]
    texts = [item.value for found in lists for item in found.elts if isinstance(item, ast.Constant)]
    return [Requirement(str(text)) for text in texts if re.search("[<>=]", str(text)) and " = " not in str(text)]


def versions_tested(requirement: Requirement) -> list[Version]:
    """The versions of the constraints of all Pythons that a requirement is for."""
    found = []
    for path in ROOT.glob("constraints*.txt"):
        python = re.search(r"3\.\d+", path.name)
        lines = (line.partition("#")[0].strip().partition("==") for line in path.read_text().splitlines())
        versions = {canonicalize_name(name): version for name, _, version in lines if version}
        environment = {"python_version": python.group() if python else "3.11"}
        if requirement.marker is None or requirement.marker.evaluate(environment):
            found.append(Version(versions[canonicalize_name(requirement.name)]))
    return found


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_what_was_tested_is_admitted_and_the_next_series_is_not(requirement: Requirement) -> None:
    versions = versions_tested(requirement)
    assert all(requirement.specifier.contains(version) for version in versions)
    newest = max(versions)
    later = [Version(f"{newest.major + 1}.0")]
    if canonicalize_name(requirement.name) not in BY_SOMEBODY_ELSE:
        later.append(Version(f"{newest.major}.{newest.minor + 1}"))
    assert not [str(version) for version in later if requirement.specifier.contains(version)]
