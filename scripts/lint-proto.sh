#!/usr/bin/env bash
# Lints the protos, and compares them with proto/baseline.binpb.gz, the API as it was last released: clients built against
# it must go on working. With --baseline it makes today's API the baseline instead.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/protos.sh
buf() { go tool -modfile=scripts/tools/buf/go.mod buf "$@"; }
baseline=proto/baseline.binpb.gz
if [[ ${1:-} == --baseline ]]; then
  buf build proto --exclude-source-info -o "$baseline"
  exit
fi
buf format proto --path proto/secateur --diff --exit-code
buf lint proto
# As images: buf counts a workspace as one input a module, and the baseline is one.
now=$(mktemp --suffix .binpb)
trap 'rm -f "$now"' EXIT
buf build proto --exclude-source-info -o "$now"
buf breaking "$now" --against "$baseline" --config '{"version":"v2","breaking":{"use":["FILE"],"ignore":["onnx","google"]}}'
