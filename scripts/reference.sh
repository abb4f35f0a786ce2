#!/usr/bin/env bash
# Compares whole models, dense, pruned and networks of the zoo that were cut, with ONNX Runtime, once ONNX's checker has accepted them; and images with OpenCV and Pillow.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.cache/venv/bin/python
out=.cache/reference
rm -rf "$out"
mkdir -p "$out/zoo"

make bin/secateur
bin/secateur phantom --out "$out/phantoms" --n 12 --seed 1
# A pruned model must be as good a citizen as the one it came from. Exit code 3 says that so few images prove nothing.
for name in polyp-unet polyp-lite0; do
  bin/secateur prune --model "deploy/models/$name.onnx" --out "$out/$name-pruned.onnx" --calib "$out/phantoms" --target macs=0.3 || [[ $? == 3 ]]
done
SECATEUR_CUT_ZOO=$PWD/$out/zoo go test -count=1 -run TestZooLosesAThird ./pruner
$python scripts/ort_reference.py "$out/cases" deploy/models/*.onnx "$out"/*-pruned.onnx "$out"/zoo/*.onnx
SECATEUR_REFERENCE=$PWD/$out/cases go test -count=1 -run TestReference -v ./engine
$python scripts/vision_reference.py --check
