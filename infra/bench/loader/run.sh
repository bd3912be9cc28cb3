#!/usr/bin/env bash
# The loader alone, on one core: photos, without a cache, with one that holds all, and with one that does not; medians.
#   run.sh [key=value …]   settings of the runs, for example loader.prefetch=64MiB
#
#   ROUNDS   how often each is measured (default 5)
#   STEPS    batches of 64 photos (default 60)
#   FOREBAY  the command (default: built here)
# Wants FOREBAY_TEST_DATA, and a quiet machine. Figures are per CPU-second of the whole process.
set -euo pipefail
cd "$(dirname "$0")/../../.."
rounds=${ROUNDS:-5}
steps=${STEPS:-60}
data=${FOREBAY_TEST_DATA:?the folder of the test data}

forebay=${FOREBAY:-}
if [ -z "$forebay" ]; then
  cargo build --quiet --workspace --bins
  forebay=${CARGO_TARGET_DIR:-target}/debug/forebay
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

tar --zstd -xf "$data/flower_photos_val.tar.zst" -C "$scratch"
PHOTOS=$scratch/flower_photos_val "$forebay" ingest examples/photos.toml --set dataset="$scratch/photos" > "$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }

run() { # NAME MODEL BATCH EXTRA
  cat > "$scratch/$1.toml" <<END
name = "$1"
dataset = "$scratch/$4"
checkpoints = "$scratch/checkpoints"
[model]
$2
[batch]
steps = 1000000
micro_batches = 1
micro_batch_size = $3
[augment]
min_crop_area = 0.08
flip = 0.5
max_rotation_degrees = 0.0
END
}
run photos $'kind = "resnet"\ndepth = 18\nimage_size = 224' 64 photos

measure() { # NAME STEPS SETTINGS…
  local name=$1 many=$2; shift 2
  local set=() setting
  for setting in "$@"; do set+=(--set "$setting"); done
  for _ in $(seq "$rounds"); do
    taskset -c 0 "$forebay" loader bench "$scratch/$name.toml" --steps "$many" --threads 1 --json "${set[@]}"
  done > "$scratch/results"
  python3 - "$scratch/results" "$name $*" <<'END'
import json, statistics, sys
text, decoder, at, results = open(sys.argv[1]).read(), json.JSONDecoder(), 0, []
while at < len(text.rstrip()):
    result, end = decoder.raw_decode(text, at)
    results.append(result)
    at = end + len(text[end:]) - len(text[end:].lstrip())
median = lambda of: statistics.median(of(result) for result in results)
waited = lambda result: sum(result["waits"].values()) + result["consumer"]
assert all(abs(waited(result) / result["seconds"] - 1) < 0.01 for result in results), "waits do not add up to the time"
assert len({result["samples_digest"] for result in results}) == 1, "runs were fed differently"
print(f"{sys.argv[2]}: {median(lambda r: r['samples'] / r['cpu_seconds']):,.0f} samples a CPU-second, first after "
      f"{median(lambda r: r['first_seconds']):.3f} s, rows read / wanted {median(lambda r: r['work']['read_rows'] / r['work']['used_rows']):.3f}, "
      f"{len(results)} rounds of {results[0]['samples']} samples")
END
}

measure photos "$steps" "$@"
measure photos "$steps" loader.cache.folder="$scratch/cache" "$@"
measure photos "$steps" loader.cache.folder="$scratch/cache" loader.cache.size=8MiB "$@"
