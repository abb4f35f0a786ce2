#!/usr/bin/env bash
# Runs every fuzz target for a while (default 20s each).
set -euo pipefail
cd "$(dirname "$0")/.."
for pkg in $(go list ./...); do
  for f in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
    echo "== $pkg $f"
    go test -run '^$' -fuzz "^$f\$" -fuzztime "${1:-20s}" "$pkg"
  done
done
