#!/usr/bin/env bash
# Generates all that is generated. Run twice it changes nothing; continuous integration runs it and looks for a difference.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/protos.sh
go tool -modfile=scripts/tools/buf/go.mod buf generate --template proto/buf.gen.yaml
go generate ./engine/kernel
go test ./cmd/secateur -run '^TestOperatorsPage$' -count=1 -update
