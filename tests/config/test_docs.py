"""The documentation of the config is the config."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.config.__main__ import main
from pipeline.config.docs import config_reference

ROOT = Path(__file__).parents[2]


def test_config_md_is_up_to_date() -> None:
    written = (ROOT / "docs" / "CONFIG.md").read_text()
    assert written == config_reference(), "docs/CONFIG.md is stale: run `make docs`"


def test_every_key_has_a_type_and_a_meaning() -> None:
    rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in config_reference().splitlines() if row.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if len(row) != 4 or not all(cell.strip() for cell in row)] == []


def test_links_lead_to_headings() -> None:
    text = config_reference()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    anchors = {"".join(c for c in h.lower() if c.isalnum() or c in " _-").replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) == anchors


def test_schema_is_json_with_every_top_level_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["required"] == ["run_directory", "volumes", "student"]
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["additionalProperties"] is False
    assert "validate" in schema["$defs"]["VolumesConfig"]["properties"]
