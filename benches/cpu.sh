#!/usr/bin/env bash
# This program against PyTorch, and against llama.cpp, on one CPU: equal threads, runs in turn, medians, ratios.
#
#   benches/cpu.sh TORCH_SCRIPT [ROUNDS] [PRESET]
#   LLAMA_SCRIPT=FILE GGUF_DIR=DIR benches/cpu.sh TORCH_SCRIPT [ROUNDS]
#
# TORCH_SCRIPT is a Python program with the options of `bench` (--preset, --device, --dtype, --stage, --batch, --skip) that prints
# one JSON line with encode_ms, prefill_ms, decode_tok_s and step_ms. LLAMA_SCRIPT takes a GGUF file and prints one with prefill_ms and
# decode_ms; GGUF_DIR has F16.gguf, Q8_0.gguf, Q4_0.gguf and Q4_K_M.gguf of SmolLM2-135M. PYTHON names an interpreter that has torch and
# transformers, or llama_cpp. SKIP leaves out phases, separated by commas: encode, torch, llama, train.
set -euo pipefail
peer=${1:?the PyTorch script}
rounds=${2:-5}
preset=${3:-smollm2-135m}
python=${PYTHON:-python3}
skip=",${SKIP:-},"
cd "$(dirname "$0")/.."
[ -n "${PROGRAM:-}" ] || cargo build --release --locked -p tg-llava-cli
program=${PROGRAM:-${CARGO_TARGET_DIR:-target}/release/tg-llava-cli}
out=$(mktemp -d)
wanted() { [[ "$skip" != *",$1,"* ]]; }
ours() { # NAME OPTIONS
  local name=$1
  shift
  "$program" bench -q --preset "$preset" --device flex --reps 1 "$@" >"$out/ours-$name-$round.json"
}
theirs() { # NAME OPTIONS
  local name=$1
  shift
  "$python" "$peer" --preset "$preset" --device cpu "$@" >"$out/torch-$name-$round.json" 2>/dev/null
}
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  if wanted torch; then
    phases=prefill,decode
    without=
    if wanted encode; then phases=encode,$phases; else without=encode; fi
    ours f32 --dtype f32 --phase "$phases"
    theirs f32 --dtype float32 --reps 1 --skip "$without"
    ours bf16 --dtype bf16 --phase "$phases"
    theirs bf16 --dtype bfloat16 --reps 1 --skip "$without"
  fi
  if wanted train; then
    for stage in 1 2; do
      ours "train-$stage" --dtype f32 --phase train --stage "$stage"
      theirs "train-$stage" --dtype float32 --reps 2 --skip encode,prefill,decode --stage "$stage" --batch 2
    done
  fi
  if wanted llama && [ -n "${LLAMA_SCRIPT:-}" ]; then
    for pair in F16:f16 Q8_0:q8_0 Q4_0:q4_0 Q4_K_M:q4_k_m; do
      format=${pair#*:}
      if [ "$format" = f16 ]; then asked=(--dtype f16); else asked=(--dtype f32 --quantize "$format"); fi
      ours "$format" "${asked[@]}" --phase prefill,decode
      "$python" "$LLAMA_SCRIPT" "${GGUF_DIR:?}/${pair%:*}.gguf" --reps 1 >"$out/llama-$format-$round.json" 2>/dev/null
    done
  fi
done
lscpu | grep -E '^(Model name|CPU family|Model):' || true
"$python" - "$out" <<'P'
import glob, json, re, statistics, sys

def read(kind, name):
    files = sorted(glob.glob(f"{sys.argv[1]}/{kind}-{name}-*.json"), key=lambda f: int(re.search(r"-(\d+)\.json$", f)[1]))
    return [json.load(open(f)) for f in files]

def phase(reports, name):
    return [r["phases"][name]["ms"] for r in reports if name in r["phases"]]

rows = []
for dtype in ("f32", "bf16"):
    ours, torch = read("ours", dtype), read("torch", dtype)
    for name in ("encode", "prefill"):
        rows.append((f"{name}, {dtype}", phase(ours, name), [t[f"{name}_ms"] for t in torch if f"{name}_ms" in t], "PyTorch"))
    rows.append((f"decode, {dtype}", phase(ours, "decode"), [1e3 / t["decode_tok_s"] for t in torch], "PyTorch"))
for stage in (1, 2):
    ours = [o["phases"]["train"][f"stage_{stage}"]["ms"] for o in read("ours", f"train-{stage}")]
    rows.append((f"train, stage {stage}", ours, [t["step_ms"] for t in read("torch", f"train-{stage}")], "PyTorch"))
for name in ("f16", "q8_0", "q4_0", "q4_k_m"):
    ours, llama = read("ours", name), read("llama", name)
    for part in ("prefill", "decode"):
        rows.append((f"{part}, {name}", phase(ours, part), [l[f"{part}_ms"] for l in llama], "llama.cpp"))
print(f"{'phase':18} {'ours ms':>10} {'theirs ms':>10} {'ratio':>6}   medians, and the median of each round's ratio")
for name, a, b, peer in rows:
    if a and b:
        ratio = statistics.median(x / y for x, y in zip(a, b))
        print(f"{name:18} {statistics.median(a):10.1f} {statistics.median(b):10.1f} {ratio:6.2f}   {peer}, {len(a)} rounds")
P
