#!/usr/bin/env bash
# The whole comparison: Torch-Pruning, ours, Torch-Pruning repaired for as long as ours, the picture and the tables. What is
# in docs/measured/torch-pruning.json is not measured again; without that file all of it is, which takes hours.
#   scripts/compare_torch_pruning.sh PYTHON MODELS DATA
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 models=${2:?MODELS: a folder of NAME.onnx and torch/} data=${3:?DATA: a folder of calib/ and val/}
run() { "$python" scripts/compare_torch_pruning.py "$@"; }
run --models "$models" --data "$data"
run --models "$models" --data "$data" --torch none --secateur bin/secateur
run --models "$models" --data "$data" --variants best --repair-seconds ours
run --draw docs/pruning-curve.svg --markdown
