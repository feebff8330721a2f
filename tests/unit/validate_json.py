#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks JSON values, one per line on standard input, against a schema file.

Used by the unit tests on what migrate-ctl really prints. Schemas refer to each
other by file name, within the directory of the first.
"""
import json
import pathlib
import sys

import jsonschema


def main() -> int:
    path = pathlib.Path(sys.argv[1])
    store = {}
    for other in path.parent.glob("*.schema.json"):
        schema = json.loads(other.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        store[schema["$id"]] = schema
    schema = json.loads(path.read_text())
    resolver = jsonschema.RefResolver(schema["$id"], schema, store=store)
    validator = jsonschema.Draft202012Validator(schema, resolver=resolver)
    lines = [line for line in sys.stdin if line.strip()]
    faults = [fault for line in lines for fault in validator.iter_errors(json.loads(line))]
    for fault in faults:
        print(f"{path.name}: {'/'.join(map(str, fault.absolute_path))}: {fault.message}", file=sys.stderr)
    return 1 if faults or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
