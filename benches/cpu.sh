#!/usr/bin/env bash
# This program against PyTorch on one CPU: equal threads, runs in turn, medians, ratios.
#
#   benches/cpu.sh PEER_SCRIPT [ROUNDS] [PRESET]
#
# PEER_SCRIPT is a Python program with the options of `bench` (--preset, --device, --dtype, --stage, --batch, --skip) that prints
# one JSON line with encode_ms, prefill_ms, decode_tok_s and step_ms. PYTHON names an interpreter that has torch and transformers.
set -euo pipefail
peer=${1:?the peer script}
rounds=${2:-5}
preset=${3:-smollm2-135m}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
cargo build --release --locked -p tg-llava-cli
program=${CARGO_TARGET_DIR:-target}/release/tg-llava-cli
out=$(mktemp -d)
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  "$program" bench -q --preset "$preset" --device flex --dtype f32 --reps 1 >"$out/ours-$round.json"
  "$python" "$peer" --preset "$preset" --device cpu --dtype float32 --reps 1 >"$out/peer-$round.json" 2>/dev/null
  for stage in 1 2; do
    "$python" "$peer" --preset "$preset" --device cpu --dtype float32 --reps 2 --skip encode,prefill,decode \
      --stage "$stage" --batch 2 >"$out/peer-stage$stage-$round.json" 2>/dev/null
  done
done
"$python" - "$out" "$rounds" <<'P'
import json, statistics, sys
out, rounds = sys.argv[1], range(1, int(sys.argv[2]) + 1)
read = lambda name: [json.load(open(f"{out}/{name}-{r}.json")) for r in rounds]
ours, peer = [o["phases"] for o in read("ours")], read("peer")
rows = [("encode", [o["encode"]["ms"] for o in ours], [p["encode_ms"] for p in peer]),
        ("prefill", [o["prefill"]["ms"] for o in ours], [p["prefill_ms"] for p in peer]),
        ("decode", [o["decode"]["ms"] for o in ours], [1e3 / p["decode_tok_s"] for p in peer])]
for stage in (1, 2):
    rows.append((f"train, stage {stage}", [o["train"][f"stage_{stage}"]["ms"] for o in ours],
                 [p["step_ms"] for p in read(f"peer-stage{stage}")]))
print(f"{'phase':16} {'ours ms':>10} {'PyTorch ms':>11} {'ratio':>6}   medians of {len(rounds)}, ratio of each round's pair")
for name, a, b in rows:
    ratio = statistics.median(x / y for x, y in zip(a, b))
    print(f"{name:16} {statistics.median(a):10.1f} {statistics.median(b):11.1f} {ratio:6.2f}")
P
