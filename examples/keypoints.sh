#!/usr/bin/env bash
# Keypoints: the small Keypoint R-CNN of docs/results-paper.md on a small set such as glue tubes, from scratch; hours on 2 CPU
# cores. There, plain training found boxes better in one of two trials: train it too, and compare.
#
#     bash examples/keypoints.sh DATA [FLAGS…]      writes into keypoints/; FLAGS go to all trainings
set -euo pipefail
data="${1:?bash examples/keypoints.sh DATA [FLAGS...]}"
out=keypoints

msad data check "$data" --size 256,456 --task keypoints
for scales in aligned vanilla; do
    msad teacher --data "$data" --detector keypointrcnn --rois 64 --init none --backbone resnet18 --width 0.5 \
        --head-channels 64 --size 256,456 --batch 4 --lr 0.01 --epochs 40 --eval-every 5 --scales $scales \
        --out $out/$scales.safetensors "${@:2}"
done
msad distill --teacher $out/aligned.safetensors --batch 4 --lr 0.01 --epochs 16 --eval-every 4 \
    --out $out/student.safetensors "${@:2}"
msad eval $out/vanilla.safetensors --view low
msad eval $out/student.safetensors
