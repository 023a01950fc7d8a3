#!/usr/bin/env bash
# Boxes: the small FCOS of docs/results-paper.md on a small set such as blood cells, from scratch; about an hour on 2 CPU cores.
#
#     bash examples/blood_cells.sh DATA [FLAGS…]      writes into blood_cells/; FLAGS go to all trainings
set -euo pipefail
data="${1:?bash examples/blood_cells.sh DATA [FLAGS...]}"
out=blood_cells

msad data check "$data" --size 256,341
msad teacher --data "$data" --init none --backbone resnet18 --width 0.5 --head-channels 64 --head-convs 2 \
    --size 256,341 --batch 8 --lr 0.02 --epochs 36 --eval-every 4 --out $out/teacher.safetensors "${@:2}"
# The student from the teacher's weights, distilled; and the same one without distillation, to know what that brings.
msad distill --teacher $out/teacher.safetensors --batch 8 --lr 0.02 --epochs 36 --eval-every 4 \
    --out $out/student.safetensors "${@:2}"
msad distill --teacher $out/teacher.safetensors --batch 8 --lr 0.02 --epochs 36 --eval-every 4 \
    --no-distill --init teacher --out $out/init-only.safetensors "${@:2}"
msad compare $out/init-only.safetensors $out/student.safetensors $out/teacher.safetensors --plot $out/compared.png
msad eval $out/student.safetensors --per-class
