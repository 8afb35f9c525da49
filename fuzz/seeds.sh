#!/bin/sh
# The fuzzer's first inputs: each golden file, behind the byte that says which file of the folder it is.
set -eu
cd "$(dirname "$0")"
golden=../crates/sdxl/tests/golden/pipeline
mkdir -p corpus/folder

seed() { # byte, name, file
    { printf "\\$(printf %03o "$1")"; cat "$3"; } >"corpus/folder/$2"
}

seed 0 model_index "$golden/model_index.json"
seed 1 unet "$golden/unet/config.json"
seed 2 vae "$golden/vae/config.json"
seed 3 text_encoder "$golden/text_encoder/config.json"
seed 4 text_encoder_2 "$golden/text_encoder_2/config.json"
seed 5 scheduler "$golden/scheduler/scheduler_config.json"
seed 6 vocab "$golden/tokenizer/vocab.json"
seed 7 merges "$golden/tokenizer/merges.txt"
seed 8 tokenizer_config "$golden/tokenizer/tokenizer_config.json"
seed 9 special_tokens_map "$golden/tokenizer/special_tokens_map.json"

small=$(mktemp)
printf '{"model":{"type":"BPE","vocab":{"<|startoftext|>":0,"<|endoftext|>":1,"a":2,"b</w>":3,"ab</w>":4},"merges":["a b</w>"]},"added_tokens":[{"id":1,"content":"<|endoftext|>","special":true,"normalized":false}]}' >"$small"
seed 10 tokenizer_json "$small"
header='{"__metadata__":{"format":"pt"},"x":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}'
{ printf "\\$(printf %03o ${#header})\\0\\0\\0\\0\\0\\0\\0%s" "$header"; printf '123456789012'; } >"$small"
seed 11 safetensors "$small"
printf '{"metadata":{},"weight_map":{"decoder.conv_out.bias":"a.safetensors"}}' >"$small"
seed 12 shards "$small"
printf 'A photo of an astronaut, do not <|endoftext|> 4k' >"$small"
seed 13 prompt "$small"
rm "$small"
