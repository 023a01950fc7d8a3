#!/usr/bin/env bash
# What docs/performance.md marks "not measured" on a GPU, in nine minutes on one H200 or H100; one Markdown file.
#
#     bash benchmarks/on_gpu.sh SET OUT.md [--toy] [--wheels DIR]
#
# SET is a folder in the COCO layout with boxes (train2017, val2017). Each part has its most seconds, and the script ends
# at LIMIT seconds (530). OUT.md is written part by part, and says what was not reached. --toy tries all but compilation
# at toy size on a CPU, without limits of parts. --wheels is for machines without a network: the wheels in DIR (hotcoco,
# pycocotools, pyyaml) are unpacked for this run alone.
#
# PICTURES (12000) images are shown to every model of the evidence, BATCH (8) is that of the first parts, PYTHON runs
# all of it, and WORK keeps models and logs, which else are removed.
set -uo pipefail

usage() {
    echo "bash benchmarks/on_gpu.sh SET OUT.md [--toy] [--wheels DIR]" >&2
    exit 2
}

toy="" wheels="" places=()
while (($#)); do
    case $1 in
        "--toy") toy=yes ;;
        "--wheels") wheels=$(realpath "${2:?--wheels: which folder?}") && shift ;;
        -*) usage ;;
        *) places+=("$(realpath -m "$1")") ;;
    esac
    shift
done
((${#places[@]} == 2)) || usage
set=${places[0]} out=${places[1]}
[[ -d $set/val2017 ]] || { echo "error: $set: no folder val2017 in it, so it is not in the COCO layout" >&2; exit 3; }
if [[ -n $wheels ]] && ! compgen -G "$wheels/*.whl" >/dev/null; then
    echo "error: --wheels $wheels: no wheels there" >&2
    exit 2
fi
limit=${LIMIT:-530} failed=0
python=${PYTHON:-$(command -v python || command -v python3)}
work=$(realpath -m "${WORK:-$(mktemp -d)}")
cd "$(dirname "$0")/.."
[[ -n ${WORK:-} ]] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work" "$(dirname "$out")"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [[ -n $wheels ]]; then
    for each in "$wheels"/*.whl; do "$python" -m zipfile -e "$each" "$work/wheels"; done
    PYTHONPATH+=:$work/wheels
fi

# Without the folders of this machine.
named() { sed -u "s|$set|SET|g; s|$work|WORK|g; ${1:-}"; }

left() { echo $((limit - SECONDS)); }

# part TITLE SECONDS COMMAND…: its output under a title, as code or, where it is Markdown, as it is; at most so long.
as_code='s/^/    /' as_markdown='s/$/  /' form=$as_code
part() {
    local title=$1 most=$2 status
    shift 2
    [[ -z $toy ]] && ((most <= $(left))) || most=$(left)
    printf '\n## %s\n\n    %s\n\n' "$title" "$*" | named >>"$out"
    if ((most < 10)); then
        echo "Not run: the time was over." >>"$out"
        return
    fi
    timeout --kill-after=5 "$most" "$@" 2>"$work/errors" | named "$form" >>"$out"
    status=${PIPESTATUS[0]}
    if ((status == 124 || status == 137)); then
        printf '\nStopped after %s s.\n' "$most" >>"$out"
    elif ((status)); then
        printf '\n**Failed** with exit code %s:\n\n' "$status" >>"$out"
        tail -n 12 "$work/errors" | named "$as_code" >>"$out"
        failed=1
    fi
}

{
    echo "# msad on a GPU"
    echo
    echo "$(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)," \
        "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo "no GPU")," \
        "$("$python" -c 'import platform, torch, torchvision
print(f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}")')."
    [[ -z $toy ]] || printf '\n**A try at toy size: no figure here means anything.**\n'
} >"$out"

rows=teacher,init-only,output-kd
if [[ -n $toy ]]; then
    device=cpu step=(--backbone resnet18 --size 64,96 --batch 1 --rounds 1)
    evidence=(--scale cpu --size 64,96 --pictures 4) predict=(--number 2 --rounds 1 --alike)
else
    device=cuda step=(--size 800,1333 --batch "${BATCH:-8}" --rounds 5) rows+=,scratch-both,l1,single-high-both,vanilla
    evidence=(--scale gpu --size 480,640 --pictures "${PICTURES:-12000}") predict=(--number 200 --rounds 3 --batch 8)
fi
use=("$python" benchmarks/utilisation.py --device "$device" "${step[@]}")
part "Use of the device: bf16, channels last" 80 "${use[@]}"
part "Use of the device: bf16, channels first" 50 "${use[@]}" --channels-first
if [[ -z $toy ]]; then
    part "Use of the device: bf16, channels last, compiled" 110 "${use[@]}" --compile
fi

# The last 80 seconds are kept for the table and for predict.
evidence=("$python" benchmarks/evidence.py "$set" --out "$work/evidence" --detector fcos --seeds 1 "${evidence[@]}"
    --rows "$rows")
training=$(($(left) - 80))
form=$as_markdown
part "Evidence" "$training" "${evidence[@]}" --minutes "$((training > 0 ? training / 60 : 0))"
for log in "$work"/evidence/*.log; do
    if [[ -e $log && ! -e ${log%.log}.safetensors ]]; then
        printf '\n%s:\n\n' "$(basename "$log")" >>"$out"
        tail -n 8 "$log" | named "$as_code" >>"$out"
    fi
done
if [[ ! -e $work/evidence/evidence.md ]] && compgen -G "$work/evidence/*.safetensors" >/dev/null; then
    part "Evidence: what is there" 45 "${evidence[@]}" --report
fi
form=$as_code
for model in output-kd init-only teacher; do
    if [[ -e $work/evidence/$model.0.safetensors ]]; then
        part "Predict beside stock FCOS, from files to boxes ($model)" 60 \
            "$python" benchmarks/throughput.py "$work/evidence/$model.0.safetensors" "$set/val2017" \
            --device "$device" "${predict[@]}"
        break
    fi
done
echo "$out after $SECONDS s"
exit $failed
