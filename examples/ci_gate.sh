#!/usr/bin/env bash
# A gate for a pipeline: it ends with another code than 0 if the set has problems or the model finds too little.
#
#     bash examples/ci_gate.sh DATA MODEL [AP=0.36,AP50=0.6]
#
# 3: the set is not usable as it is. 4: no such model, or a damaged one. 8: a number is lower than asked for.
set -euo pipefail
data="${1:?bash examples/ci_gate.sh DATA MODEL [AP=0.36]}"
model="${2:?bash examples/ci_gate.sh DATA MODEL [AP=0.36]}"

msad data check "$data" --strict
# One thread and float32: the same numbers whatever else the machine does. --json leaves them for a report.
OMP_NUM_THREADS=1 msad eval "$model" --data "$data" --device cpu --precision fp32 --fail-under "${3:-AP=0.36}" --json
