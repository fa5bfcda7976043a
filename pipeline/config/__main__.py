"""`python -m pipeline.config schema | docs | check FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ..errors import UserError
from ..terminal import replace_what_cannot_be_printed, write_document
from .advice import fragments_warnings, stated_voxel_size
from .docs import config_reference
from .load import config_hash, load_config
from .root import Config


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the JSON Schema, print docs/CONFIG.md, or check a config file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.config", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("schema", help="print the JSON Schema of the config")
    commands.add_parser("docs", help="print docs/CONFIG.md")
    check = commands.add_parser("check", help="say whether a config file is valid")
    check.add_argument("file")
    check.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value; repeatable")
    options = parser.parse_args(arguments)
    replace_what_cannot_be_printed()
    if options.command == "schema":
        write_document(json.dumps(Config.model_json_schema(by_alias=True), indent=2) + "\n")
    elif options.command == "docs":
        write_document(config_reference())
    else:
        try:
            config = load_config(options.file, options.set)
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        text = f"{options.file}: valid (hash {config_hash(config)}), run directory {config.run_directory}; no path was"
        text += " looked at\n"
        text += "".join(f"warning: {warning}\n" for warning in fragments_warnings(config, stated_voxel_size(config)))
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
