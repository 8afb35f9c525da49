#!/bin/sh
# Makes the model from nothing, or goes on where it stopped:
#     PYTHON=python make.sh WORK CLIP EXPORT      (a folder to work in, an SDXL's tokenizer/, the model's folder)
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
work=$1 clip=$2 out=$3
python=${PYTHON:-python}
sets=${SETS:-"0 1 2"} vae_steps=${VAE_STEPS:-2000} unet_steps=${UNET_STEPS:-5300}

draw() { # a set of 8,000 pictures, once
    [ -e "$work/set-$1/done" ] && return
    "$python" "$tools/generate.py" set "$work/set-$1" --count 8000 --seed "10$1"
    touch "$work/set-$1/done"
}
mkdir -p "$work"
[ -e "$work/tokenizers" ] || "$python" "$tools/vocabulary.py" --clip "$clip" --out "$work/tokenizers"
draw 0
[ -e "$work/vae/vae" ] || "$python" "$tools/train_vae.py" --set "$work/set-0" --out "$work/vae" --steps "$vae_steps"
for i in $sets; do
    draw "$i"
    [ -e "$work/latents/$i.npy" ] || "$python" "$tools/latents.py" --vae "$work/vae/vae" --set "$work/set-$i" --out "$work/latents/$i"
done
"$python" "$tools/train_unet.py" --latents "$work/latents" --vae "$work/vae/vae" --tokenizers "$work/tokenizers" --out "$work/unet" \
    --steps "$unet_steps" --export "$out"
