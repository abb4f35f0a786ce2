#!/usr/bin/env bash
# Compares whole models, dense and pruned, with ONNX Runtime; and images with OpenCV and Pillow.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.cache/venv/bin/python
out=.cache/reference
rm -rf "$out"
mkdir -p "$out"

make bin/secateur
bin/secateur phantom --out "$out/phantoms" --n 12 --seed 1
# A pruned model must be as good a citizen as the one it came from. Exit code 3 says that so few images prove nothing.
for name in polyp-unet polyp-lite0; do
  bin/secateur prune --model "deploy/models/$name.onnx" --out "$out/$name-pruned.onnx" --calib "$out/phantoms" --target macs=0.3 || [[ $? == 3 ]]
done
$python scripts/ort_reference.py "$out/cases" deploy/models/*.onnx "$out"/*-pruned.onnx
SECATEUR_REFERENCE=$PWD/$out/cases go test -count=1 -run TestReference -v ./engine
$python scripts/vision_reference.py --check
