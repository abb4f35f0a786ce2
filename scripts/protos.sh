#!/usr/bin/env bash
# Puts Google's .proto files, from their Python package, where buf looks for them: proto/.deps, which git ignores.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=proto/.deps/.ok
if [[ -e $stamp && $stamp -nt scripts/requirements-protos.txt ]]; then
  exit
fi
rm -rf proto/.deps .cache/googleapis
mkdir -p proto/.deps/google/longrunning .cache
python3 -m pip install -q --no-deps --no-compile --disable-pip-version-check --root-user-action ignore \
  --target .cache/googleapis -r scripts/requirements-protos.txt
from=.cache/googleapis/google
cp -r "$from/api" "$from/rpc" proto/.deps/google/
# The package renames this one, so that it does not hide the module of its generated Python.
cp "$from/longrunning/operations_proto.proto" proto/.deps/google/longrunning/operations.proto
find proto/.deps -type f ! -name '*.proto' -delete
touch "$stamp"
