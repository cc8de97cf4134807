#!/usr/bin/env bash
# Everything that a GPU machine can tell about this program, in one call of under nine minutes.
#
#   benches/gpu.sh PROGRAM OUT [DEVICE] [PEER_SCRIPT]
#
# PROGRAM: a release build with the `cuda` feature (or `vulkan`, with DEVICE vulkan), or the same as .xz. OUT: a folder for the
# report and the logs. A second program without fusion and autotune may lie beside the first as PROGRAM-plain(.xz). Every part has a
# time limit of its own and a line in OUT/report.md, whether it works or not.
set -uo pipefail
program=$(realpath "${1:?the program}")
out=${2:?a folder for the report}
device=${3:-cuda}
peer=${4:-}
cd "$(dirname "$0")/.."
mkdir -p "$out"
out=$(realpath "$out")
report=$out/report.md
started=$SECONDS
unpack() { # an .xz becomes a program in a scratch folder
  case $1 in
    *.xz) local to; to=$(mktemp -d)/$(basename "$1" .xz); xz -dc "$1" >"$to"; chmod +x "$to"; echo "$to" ;;
    *) echo "$1" ;;
  esac
}
ours=$(unpack "$program")
export ours device out
plain=""
base=${program%.xz}
for candidate in "$base-plain" "$base-plain.xz"; do [ -f "$candidate" ] && plain=$(unpack "$candidate"); done

say() { echo "$*" | tee -a "$report"; }
# part NAME SECONDS COMMAND...: one line in the report, the whole output in a log
part() {
  local name=$1 limit=$2 rc start=$SECONDS
  shift 2
  if [ $((SECONDS - started)) -gt 500 ]; then say "| $name | left out: no time |  |"; return; fi
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  rc=$?
  say "| $name | $([ $rc = 0 ] && echo ok || echo "exit code $rc") | $((SECONDS - start)) s |"
}
gpu_memory() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2>/dev/null | head -n 1; }

say "# $device, $(date -u +%F)"
say ""
say "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo 'no nvidia-smi')"
say ""
say "| part | result | time |"
say "|---|---|---|"

# Numbers first: all golden folders, in both formats, with and without fusion.
part parity-f32 90 "$ours" parity --device "$device" tests/fixtures
# Who computes products, on CUDA: named, since a comparison at the start is a part of its own.
burn=() vendor=()
case $device in cuda*) burn=(--products burn) vendor=(--products cublaslt) ;; esac
part parity-bf16 60 "$ours" parity --device "$device" --dtype bf16 "${burn[@]}" tests/fixtures
[ -n "${vendor[*]}" ] && part parity-bf16-cublaslt 60 "$ours" parity --device "$device" --dtype bf16 "${vendor[@]}" tests/fixtures
[ -n "$plain" ] && part parity-f32-plain 60 "$plain" parity --device "$device" tests/fixtures
part parity-quantised 60 "$ours" parity --device "$device" --only forward tests/fixtures/quant
part chat 30 "$ours" chat --device "$device" --image examples/pictures/blue-rectangle.png "what color is the shape?"
answers() { # in few bits: the same here and on the CPU
  local format picture here there
  for format in q8_0 q4_k_m q4_0; do
    for picture in examples/pictures/{blue-rectangle,green-triangle,red-circle}.png; do
      here=$("$ours" chat --device "$device" --quantize $format --image $picture "what shape is in the image?") || return 1
      there=$("$ours" chat --device flex --quantize $format --image $picture "what shape is in the image?") || return 1
      echo "$format, $picture: $here, on the CPU $there"
      [ "$here" = "$there" ] || return 1
    done
  done
}
export -f answers
part answers-quantised 60 bash -c answers

# Ranks: NCCL with a world of one, every collective amid products that reuse memory, 500 times; memory must not grow.
part collectives 60 "$ours" bench --collectives --device "$device" --reps 500
[ -n "$plain" ] && part collectives-plain 60 "$plain" bench --collectives --device "$device" --reps 500

# Memory and time of one of eight ranks in stage 2, beside the forecast. The model has Qwen2-7B's sizes, random weights and the
# tokenizers of a small one; the samples fill all 2,048 places.
sizes=$(mktemp -d)
small=tests/fixtures/models/qwen2-tiny
cp -r benches/qwen2-7b/. "$sizes"
cp $small/{tokenizer,tokenizer_config,special_tokens_map}.json "$sizes"
cp $small/clip-tower/{tokenizer,tokenizer_config,special_tokens_map}.json "$sizes/tower"
answer=$(printf 'a shape of some colour %.0s' {1..600})
picture=$(cd examples/data/easy-vqa/images && find . -name '*.png' | sort | head -n 1)
sample='{"id": "%s", "image": "'"$picture"'", "conversations": [{"from": "human", "value": "<image>\\nwhat is it?"}, {"from": "gpt", "value": "'"$answer"'"}]}'
{ echo '['; for id in {1..512}; do printf "$sample"',\n' "$id"; done; printf "$sample"']\n' 513; } >"$sizes/data.json"
rank() { # DRY_RUN_OR_SIMULATE...: stage 2 of it
  "$ours" train --device "$device" --dtype bf16 --config examples/runs/finetune.toml "$@" \
    $(printf -- '--set %s ' "model.path=$sizes" "model.vision_tower=$sizes/tower" model.bridges= model.init=random "data.path=$sizes/data.json" \
      data.image_folder=examples/data/easy-vqa/images "output_dir=$out/simulated" run.batch_size=4 run.accumulation=1 \
      run.global_batch_size=128 run.max_steps=3)
}
export -f rank; export sizes
part forecast-qwen2-7b-stage2 60 bash -c 'rank --dry-run --nproc 8'
part simulate-qwen2-7b-stage2 150 bash -c 'rank --simulate 0/8'

# Speed: small preset in all phases, then the large ones where they matter.
part bench-smollm2 60 "$ours" bench --device "$device" --dtype bf16 "${burn[@]}" --reps 5
if [ -n "${vendor[*]}" ]; then
  part bench-smollm2-cublaslt 60 "$ours" bench --device "$device" --dtype bf16 "${vendor[@]}" --reps 5
  # Says on stderr what was chosen, and how the two compare.
  part bench-qwen2-7b-auto 60 "$ours" bench --device "$device" --dtype bf16 --preset qwen2-7b --phase prefill --reps 3
  part bench-qwen2-7b-train-cublaslt 60 "$ours" bench --device "$device" --dtype bf16 "${vendor[@]}" --preset qwen2-7b --phase train --batch 1 --seq 2048 --reps 3
fi
part bench-qwen2-7b 90 "$ours" bench --device "$device" --dtype bf16 --preset qwen2-7b --phase encode,prefill,decode
part bench-qwen2-7b-train 90 "$ours" bench --device "$device" --dtype bf16 "${burn[@]}" --preset qwen2-7b --phase train --batch 1 --seq 2048 --reps 3
part bench-vicuna-7b 60 "$ours" bench --device "$device" --dtype bf16 --preset vicuna-7b --phase prefill,decode --reps 3
part bench-llama3-8b 60 "$ours" bench --device "$device" --dtype bf16 --preset llama3-8b --phase prefill,decode --reps 3
part bench-vicuna-13b 60 "$ours" bench --device "$device" --dtype bf16 --preset vicuna-13b --phase prefill,decode --reps 3
part bench-qwen2-0.5b-f32 60 "$ours" bench --device "$device" --dtype f32 --preset qwen2-0.5b --phase encode,prefill,decode
# Matrices in few bits beside f16: tokens per second of one answer and of several. Few bits are made on the CPU first.
part bench-qwen2-0.5b-f16 60 "$ours" bench --device "$device" --dtype f16 --preset qwen2-0.5b --phase prefill,decode,batch --reps 5
for format in q8_0 q4_0; do
  part bench-qwen2-0.5b-$format 60 "$ours" bench --device "$device" --dtype f16 --preset qwen2-0.5b --phase prefill,decode,batch --reps 5 --quantize $format
done
part bench-vicuna-7b-f16 60 "$ours" bench --device "$device" --dtype f16 --preset vicuna-7b --phase decode --reps 3
for format in q8_0 q4_k_m; do
  part bench-vicuna-7b-$format 150 "$ours" bench --device "$device" --dtype f16 --preset vicuna-7b --phase decode --reps 3 --quantize $format
done
[ -n "$plain" ] && part bench-qwen2-7b-plain 60 "$plain" bench --device "$device" --dtype bf16 --preset qwen2-7b --phase prefill,decode --reps 3
if [ -n "$peer" ]; then
  part peer-qwen2-7b 90 python3 "$peer" --preset qwen2-7b --device cuda --dtype bfloat16
  part peer-qwen2-7b-stage1 60 python3 "$peer" --preset qwen2-7b --device cuda --dtype bfloat16 --skip encode,prefill,decode --stage 1 --batch 1 --seq 2048
  part peer-qwen2-7b-stage2 60 python3 "$peer" --preset qwen2-7b --device cuda --dtype bfloat16 --skip encode,prefill,decode --stage 2 --batch 1 --seq 2048
fi

# Memory: 200 micro-steps of a small decoder must not need more than the first 20.
memory() {
  "$ours" bench --device "$device" --dtype bf16 --preset qwen2-0.5b --phase train --stage 2 --batch 1 --seq 512 --reps 200 &
  local pid=$! first last
  sleep 20; first=$(gpu_memory); last=$first
  while kill -0 $pid 2>/dev/null; do last=$(gpu_memory); sleep 2; done
  wait $pid || return 1
  echo "MiB used after 20 s: $first, at the end: $last"
  [ -z "$first" ] || [ "$last" -le $((first + first / 20 + 64)) ]
}
export -f memory gpu_memory
part memory-200-steps 90 bash -c memory

say ""
for log in "$out"/{bench-*,collectives*,forecast-*,simulate-*,peer-*}.log; do
  [ -s "$log" ] || continue
  say "## $(basename "$log" .log)"
  say '```json'
  cat "$log" >>"$report"
  say '```'
done
say "$((SECONDS - started)) s in all"
