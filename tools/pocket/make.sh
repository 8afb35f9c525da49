#!/bin/sh
# Makes the model from nothing, or goes on where it stopped:
#     PYTHON=python make.sh WORK CLIP EXPORT      (a folder to work in, an SDXL's tokenizer/, the model's folder)
# Three of four sets are drawn beside the UNet's training, which takes them up as they come.
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
work=$1 clip=$2 out=$3
python=${PYTHON:-python}
vae_steps=${VAE_STEPS:-2000} unet_steps=${UNET_STEPS:-6000} decoder_steps=${DECODER_STEPS:-1500}

draw() { # a set and its latents, once
    [ -e "$work/latents/$1.npy" ] && return
    [ -e "$work/set-$1/done" ] || { "$python" "$tools/generate.py" set "$work/set-$1" --count 8000 --seed "10$1"; touch "$work/set-$1/done"; }
    "$python" "$tools/latents.py" --vae "$work/vae/vae" --set "$work/set-$1" --out "$work/latents/$1"
}
mkdir -p "$work"
[ -e "$work/tokenizers" ] || "$python" "$tools/vocabulary.py" --clip "$clip" --out "$work/tokenizers"
[ -e "$work/set-0/done" ] || { "$python" "$tools/generate.py" set "$work/set-0" --count 8000 --seed 100; touch "$work/set-0/done"; }
[ -e "$work/vae/vae" ] || "$python" "$tools/train_vae.py" --set "$work/set-0" --out "$work/vae" --steps "$vae_steps"
draw 0
(for i in 1 2 3; do draw $i; done) &
"$python" "$tools/train_unet.py" --latents "$work/latents" --vae "$work/vae/vae" --tokenizers "$work/tokenizers" --out "$work/unet" \
    --steps "$unet_steps" --export "$out"
wait
# The decoder alone goes on learning: the latents, and with them the UNet, stay as they are.
[ -e "$work/decoder/vae" ] || "$python" "$tools/train_vae.py" --set "$work/set-0" --out "$work/decoder" --decoder-of "$work/vae/vae" --steps "$decoder_steps"
"$python" "$tools/export.py" --training "$work/unet" --vae "$work/decoder/vae" --tokenizers "$work/tokenizers" --out "$out"
