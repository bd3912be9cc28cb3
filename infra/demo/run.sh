#!/usr/bin/env bash
# The main job on real input: the Rust sources that cargo fetched to build this project.
#   run.sh LAKE     LAKE is a URL or a path; what is below it from an earlier demo is deleted first if it is a path
# Shows: ingest, versions, the same input again, elastic training with a kill, checkpoints, evaluation, text, the report.
set -euo pipefail
cd "$(dirname "$0")/../.."
lake=${1:?usage: run.sh LAKE}
forebay=${CARGO_TARGET_DIR:-target}/debug/forebay
started=$SECONDS
say() { printf '\n\033[1m== %s\033[0m  (%d s)\n' "$*" $((SECONDS - started)); }
show() { printf '\033[2m$ forebay %s\033[0m\n' "$*"; "$forebay" "$@"; }

case $lake in *://*) ;; *) rm -rf "${lake:?}"; mkdir -p "$lake" ;; esac
code=$lake/rust-code runs=$lake/checkpoints run=rust-code-gpt
training=(examples/rust-code-gpt.toml --set dataset="$code" --set checkpoints="$runs")
# On a path the report lies beside the checkpoints; a throw-away server would take it along.
report=()
case $lake in *://*) mkdir -p lake && report=(--report lake/report-s3.html) ;; esac

say "this machine and this store"
show doctor "$lake"

say "ingest: every Rust source in cargo's registry"
show ingest examples/rust-code.toml --set dataset="$code"

say "the same input again commits nothing"
show ingest examples/rust-code.toml --set dataset="$code"

say "versions"
show dataset tag "$code" first 1
show dataset log "$code"
show dataset show "$code" first
show dataset diff "$code" first latest
show loader plan "${training[@]}" --step 0 --replicas 2

say "train with 2 replicas; one is killed in mid-run and comes back"
"$forebay" train "${training[@]}" "${report[@]}" --replicas 2 &
trainer=$!
trap 'kill $trainer 2>/dev/null || true' EXIT
# The first checkpoint says that the run is well under way.
until [ -n "$("$forebay" checkpoint log "$runs" "$run" --json 2>/dev/null | grep '"step"' || true)" ]; do
  kill -0 $trainer 2>/dev/null || { wait $trainer; exit 1; }
  sleep 1
done
victim=$(pgrep -P $trainer | tail -n 1)
printf '\n\033[1mkill -9 %s (a replica)\033[0m\n' "$victim"
kill -9 "$victim"
wait $trainer
trap - EXIT

say "checkpoints"
show checkpoint log "$runs" "$run"
show checkpoint show "$runs" "$run"
show checkpoint verify "$runs" "$run"

say "validation"
show eval "$runs" "$run" --samples 256

say "a few lines of Rust"
show generate "$runs" "$run" --prompt 'impl fmt::Display for ' --tokens 64

say "done"
