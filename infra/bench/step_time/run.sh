#!/usr/bin/env bash
# Forebay's training step against the same model in eager PyTorch, side by side: the runs alternate, medians are compared.
#   run.sh [key=value …]   steps, threads, layers, heads, width, length, vocabulary, micro_batches, micro_batch_size,
#   device (cpu, cuda:0)
#
#   ROUNDS   how often each of the two runs (default 5)
#   PYTHON   a Python that imports torch 2.11.0; without it one is set up once below FOREBAY_CACHE (about 5 GB, pip)
# Wants a quiet machine. Prints both medians and their ratio; the aim is at most 1.05.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
rounds=${ROUNDS:-5}
cache=${FOREBAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay}

python=${PYTHON:-$cache/step_time/bin/python}
if [ -z "${PYTHON:-}" ] && ! "$python" -c 'import torch' 2>/dev/null; then
  echo "setting up torch 2.11.0 in $cache/step_time" >&2
  python3 -m venv "$cache/step_time"
  "$cache/step_time/bin/pip" install --quiet torch==2.11.0 numpy
fi

# The settings of the two programs have the same names, but ours are those of a run.
ours=()
for setting in "$@"; do
  case $setting in
    layers=* | heads=* | width=*) ours+=("model.$setting") ;;
    micro_batches=* | micro_batch_size=*) ours+=("batch.$setting") ;;
    fused=*) ;;
    *) ours+=("$setting") ;;
  esac
done

# Of the whole workspace, so that dependencies are built with the features that everything else has.
cargo build --quiet --workspace --example step_time
program=${CARGO_TARGET_DIR:-target}/debug/examples/step_time
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  "$program" "${ours[@]}" >> "$results"
  "$python" "$here/eager.py" "$@" >> "$results"
done

python3 - "$results" <<'END'
import json, statistics, sys
results = [json.loads(line) for line in open(sys.argv[1])]
rounds = {}
for result in results:
    rounds.setdefault(result["program"], []).append(result)
parameters = {result["parameters"] for result in results}
assert len(rounds) == 2 and len(parameters) == 1, f"the two are not the same model: {parameters} parameters"
print(f"{parameters.pop():,} parameters, {results[0]['threads']} threads, {len(results) // 2} rounds of {results[0]['steps']} steps")
medians, bests = [], []
for program, of_program in rounds.items():
    medians.append(statistics.median(result["median_seconds"] for result in of_program))
    bests.append(min(result["best_seconds"] for result in of_program))
    print(f"  {program:<32} median {medians[-1] * 1000:8.1f} ms a step, best {bests[-1] * 1000:8.1f} ms")
print(f"  ratio of the medians {medians[0] / medians[1]:.3f}, of the best steps {bests[0] / bests[1]:.3f}")
END
