#!/usr/bin/env bash
# Masks: the small Mask R-CNN of docs/results-paper.md on a small set such as cell nuclei, from scratch; hours on 2 CPU cores.
#
#     bash examples/instance_masks.sh DATA [FLAGS…]      writes into instance_masks/; FLAGS go to both trainings
set -euo pipefail
data="${1:?bash examples/instance_masks.sh DATA [FLAGS...]}"
out=instance_masks

msad data check "$data" --size 256,256 --task masks
msad teacher --data "$data" --detector maskrcnn --rois 128 --init none --backbone resnet18 --width 0.5 --head-channels 64 \
    --size 256,256 --batch 4 --lr 0.01 --epochs 10 --eval-every 4 --out $out/teacher.safetensors "${@:2}"
msad distill --teacher $out/teacher.safetensors --batch 4 --lr 0.01 --epochs 10 --eval-every 4 \
    --out $out/student.safetensors "${@:2}"
msad eval $out/student.safetensors
msad flops $out/student.safetensors
