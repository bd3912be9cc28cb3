#!/usr/bin/env bash
# Forebay's training step against the same model in PyTorch, side by side: the runs alternate, medians are compared.
#   run.sh [key=value …]   kind (gpt, resnet, mlp), steps, threads, layers, heads, width, length, vocabulary, image_size,
#   micro_batches, micro_batch_size, device (cpu, cuda:0), world (processes; PyTorch's under DistributedDataParallel),
#   channels_last (PyTorch only: 0 or 1)
#
#   ROUNDS   how often each of them runs (default 5)
#   PYTHON   a Python that imports torch 2.11.0; without it one is set up once below FOREBAY_CACHE (about 5 GB, pip)
#   PROGRAM  the example step_time, if it is not to be built
# Wants a quiet machine. Prints medians and ratios; the aim is at most 1.00 beside PyTorch's default optimizer and its fused one.
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
    layers=* | heads=* | width=* | image_size=*) ours+=("model.$setting") ;;
    micro_batches=* | micro_batch_size=*) ours+=("batch.$setting") ;;
    channels_last=*) ;;
    *) ours+=("$setting") ;;
  esac
done

# Of the whole workspace, so that dependencies are built with the features that everything else has.
program=${PROGRAM:-${CARGO_TARGET_DIR:-target}/debug/examples/step_time}
[ -n "${PROGRAM:-}" ] || cargo build --quiet --workspace --example step_time
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  "$program" "${ours[@]}" >> "$results"
  "$python" "$here/eager.py" "$@" >> "$results"
  "$python" "$here/eager.py" "$@" fused=1 >> "$results"
done

python3 - "$results" <<'END'
import json, statistics, sys
results = [json.loads(line) for line in open(sys.argv[1])]
rounds = {}
for result in results:
    rounds.setdefault(result["program"], []).append(result)
parameters = {result["parameters"] for result in results}
assert len(parameters) == 1, f"they are not the same model: {parameters} parameters"
print(f"{parameters.pop():,} parameters, {results[0]['threads']} threads, {len(results) // len(rounds)} rounds of {results[0]['steps']} steps")
median = {program: statistics.median(result["median_seconds"] for result in of) for program, of in rounds.items()}
best = {program: min(result["best_seconds"] for result in of) for program, of in rounds.items()}
ours = results[0]["program"]
for program in rounds:
    line = f"  {program:<32} median {median[program] * 1000:8.1f} ms a step, best {best[program] * 1000:8.1f} ms"
    if program != ours:
        line += f"; ratio of the medians {median[ours] / median[program]:.3f}, of the best steps {best[ours] / best[program]:.3f}"
    print(line)
END
