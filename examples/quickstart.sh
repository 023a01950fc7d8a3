#!/usr/bin/env bash
# The main job on the built-in demo set: teacher → distil → eval → predict → flops. Ten minutes at most on 2 CPU cores.
#
#     bash examples/quickstart.sh [FOLDER]      writes into FOLDER (default: quickstart)
set -euo pipefail

folder=${1:-quickstart}
mkdir -p "$folder"
cd "$folder"

# A small network, from scratch, on small pictures: this has to run anywhere, within minutes.
msad teacher --data demo --init none --backbone resnet18 --width 0.5 --head-channels 64 --head-convs 2 \
    --size 240,320 --batch 8 --lr 0.02 --epochs 6 --eval-every 3 --overwrite
msad distill --teacher teacher.safetensors --batch 8 --lr 0.02 --epochs 6 --eval-every 3 --overwrite
msad eval teacher.safetensors
msad eval student.safetensors --per-class
pictures=$(msad data demo)/val2017
msad predict "$pictures"/00000000000?.jpg
msad flops student.safetensors
