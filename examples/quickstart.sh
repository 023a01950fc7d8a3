#!/usr/bin/env bash
# The main job on the built-in demo set: teacher → distil → eval → predict → flops. Ten minutes on 2 CPU cores with bf16.
#
#     bash examples/quickstart.sh [FOLDER]      writes into FOLDER (default: quickstart)
set -euo pipefail

mkdir -p "${1:-quickstart}"
cd "${1:-quickstart}"

# A small network, from scratch, on small images, in small batches: this has to learn within minutes, anywhere.
msad teacher --data demo --init none --backbone resnet18 --width 0.5 --head-channels 64 --head-convs 2 \
    --size 256,256 --batch 4 --lr 0.02 --decay cosine --epochs 9 --eval-every 3 --overwrite
msad distill --teacher teacher.safetensors --epochs 8 --eval-every 4 --overwrite
msad eval teacher.safetensors
msad eval student.safetensors --per-class
msad predict "$(msad data demo)"'/val2017/00000000000?.jpg'
msad flops student.safetensors
