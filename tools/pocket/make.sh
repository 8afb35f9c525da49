#!/bin/sh
# Makes the model from nothing on a CPU, or goes on where it stopped:
#     PYTHON=python make.sh WORK CLIP EXPORT      (a folder to work in, an SDXL's tokenizer/, the model's folder)
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
work=$1 clip=$2 out=$3
python=${PYTHON:-python}
sets=${SETS:-"0 1 2"} count=${COUNT:-8000} vae_steps=${VAE_STEPS:-2000} unet_steps=${UNET_STEPS:-5300}

draw() { # COUNT more pictures; parts that are there stay
    "$python" "$tools/generate.py" set "$work/set" --count "$count" --seed "10$1"
}
mkdir -p "$work"
[ -e "$work/tokenizers" ] || "$python" "$tools/vocabulary.py" --clip "$clip" --out "$work/tokenizers"
draw 0
[ -e "$work/vae/vae" ] || "$python" "$tools/train_vae.py" --set "$work/set" --out "$work/vae" --steps "$vae_steps"
for i in $sets; do
    draw "$i"
    "$python" "$tools/latents.py" --vae "$work/vae/vae" --tokenizers "$work/tokenizers" --set "$work/set" --out "$work/latents"
done
"$python" "$tools/train_unet.py" --latents "$work/latents" --vae "$work/vae/vae" --tokenizers "$work/tokenizers" --out "$work/unet" \
    --wait "$count" --steps "$unet_steps" --export "$out"
