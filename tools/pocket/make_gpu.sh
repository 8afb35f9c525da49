#!/bin/bash
# Trains the model on one GPU, going on from a model's folder: draws on every core, and trains the UNet with both text encoders, the
# VAE's decoder and the classifier meanwhile. In WORK: model (the result), evaluation, classifier.pt, logs.
#     MINUTES=20 PYTHON=python make_gpu.sh WORK MODEL
set -u
tools=$(cd "$(dirname "$0")" && pwd)
work=$1 start=$2
python=${PYTHON:-python} minutes=${MINUTES:-20} device=${DEVICE:-cuda} workers=${WORKERS:-$(getconf _NPROCESSORS_ONLN)} batch=${BATCH:-1024}
seed=${SEED:-10} judged=${JUDGED:-20000} decoder=${DECODER_MINUTES:-2.5} closing=${CLOSING:-45}  # seconds for judging at the end
end=$(awk "BEGIN { printf \"%d\", $(date +%s) + 60 * $minutes }")
mkdir -p "$work/logs"

left() { awk "BEGIN { print ($end - $1 - $(date +%s)) / 60 }"; } # minutes, but for some seconds
run() { # a tool in the background of its log
    local log=$1
    shift
    "$python" "$tools/$1.py" "${@:2}" >"$work/logs/$log.log" 2>&1
}
wait_for() { # pictures of a set
    until [ "$(ls "$work/sets/$1" 2>/dev/null | grep -vc tmp)" -ge $(($2 / 250)) ] || [ "$(date +%s)" -gt "$end" ]; do sleep 1; done
}

{ # pictures of everything for the classifier; then these workers draw for the training too
    run judged generate set "$work/sets/judged" --everything --count "$judged" --seed 50 --workers $((workers / 4))
    run train-2 generate set "$work/sets/train" --count 1000000 --seed "${seed}2" --workers $((workers / 4)) --minutes "$(left "$closing")"
} &
run train generate set "$work/sets/train" --count 1000000 --seed "${seed}1" --workers $((workers * 5 / 8)) --minutes "$(left "$closing")" &
run latents latents --vae "$start/vae" --tokenizers "$start" --set "$work/sets/train" --out "$work/latents" --device "$device" \
    --minutes "$(left "$closing")" &
unet() { # LOG: the training, until what is left for judging
    run "$1" train_unet --latents "$work/latents" --vae "$start/vae" --tokenizers "$start" --from "$start" --out "$work/unet" --export "$work/model" \
        --device "$device" --batch "$batch" --learning-rate 2e-3 --wait "${WAIT:-2000}" --minutes "$(left "$closing")"
}
{ unet unet || TORCHDYNAMO_DISABLE=1 unet unet-again; } & # should torch.compile fail
unet=$!
{
    wait_for train "${WAIT:-2000}"
    run decoder train_vae --set "$work/sets/train" --out "$work/decoder" --decoder-of "$start/vae" --device "$device" --batch 64 --crop 128 \
        --learning-rate 1e-3 --minutes "$decoder"
} &
{
    wait_for judged "$judged"
    run classifier classifier --set "$work/sets/judged" --out "$work/classifier.pt" --epochs "${EPOCHS:-16}" --device "$device"
} &
beside=$!
wait $unet $beside
vae=$work/decoder/vae
[ -e "$vae" ] || vae=$start/vae
run export export --training "$work/unet" --vae "$vae" --tokenizers "$start" --out "$work/model"
run evaluation evaluate --model "$work/model" --device "$device" --classifier "$work/classifier.pt" --out "$work/evaluation"
cat "$work/logs/evaluation.log"
wait
