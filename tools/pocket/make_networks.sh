#!/bin/bash
# Trains the networks for preprocessing on one GPU, at the same time; other cores draw meanwhile. In WORK: a folder for each network, logs.
# The segmenter goes on from MODEL/segmenter; START=no: from nothing.
#     MINUTES=7 NETWORKS="captioner segmenter upscaler" PYTHON=python make_networks.sh WORK MODEL
set -um
tools=$(cd "$(dirname "$0")" && pwd)
work=$1 model=$2
python=${PYTHON:-python} minutes=${MINUTES:-7} device=${DEVICE:-cuda} workers=${WORKERS:-$(getconf _NPROCESSORS_ONLN)} seed=${SEED:-30}
networks=${NETWORKS:-captioner segmenter upscaler}
end=$(awk "BEGIN { printf \"%d\", $(date +%s) + 60 * $minutes }")
mkdir -p "$work/logs" "$work/scenes" "$work/set"

left() { awk "BEGIN { print ($end - $(date +%s)) / 60 }"; } # minutes
network() { # NAME LOG: one training until the end
    local start=()
    [ "$1" = segmenter ] && [ "${START:-}" != no ] && start=(--start "$model/segmenter")
    "$python" "$tools/train_$1.py" --scenes "$work/scenes" --set "$work/set" "${start[@]}" --out "$work/$1" --minutes "$(left)" --device "$device" \
        >"$work/logs/$2.log" 2>&1
}

nice "$python" "$tools/scenes.py" "$work/scenes" --processes $((workers / 5 + 1)) --count 40000 --seed "$seed" --seconds $((end - $(date +%s) - 30)) \
    >"$work/logs/scenes.log" 2>&1 &
drawing=(-$!)
"$python" "$tools/generate.py" set "$work/set" --count 200000 --styled 0.3 --seed "$seed" --workers $((workers * 5 / 8)) --minutes "$(left)" \
    >"$work/logs/set.log" 2>&1 &
drawing+=(-$!)
export POCKET_TOKENIZER=$model/tokenizer
trainings=()
for name in $networks; do
    { network "$name" "$name" || TORCHDYNAMO_DISABLE=1 network "$name" "$name-again"; } & # should torch.compile fail
    trainings+=($!)
done
wait "${trainings[@]}"
kill -- "${drawing[@]}" 2>/dev/null
tail -n 2 "$work"/logs/*.log
