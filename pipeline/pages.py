"""HTML pages from templates."""

from __future__ import annotations

import jinja2


def html_environment(package: str) -> jinja2.Environment:
    """Templates in the folder `templates` of a package: all text is escaped, and unknown names are errors."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
