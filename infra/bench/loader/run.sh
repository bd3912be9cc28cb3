#!/usr/bin/env bash
# The loader alone, on one core, beside its rivals: makes the datasets, then measures; see README.md.
#   run.sh [part …]   bare rivals start memory cache storage link tail; without one: all but the last three, which need an S3 server
#
#   ROUNDS   how often each is measured (default 5)
#   FOREBAY  the command (default: built here)
#   PYTHON   an interpreter that has the rivals (torch, torchvision, mosaicml-streaming, webdataset, litdata,
#            pylance, spdl); one that is missing is left out
#   LAKE     where the datasets are kept from one run to the next (default: made anew and deleted)
# Wants FOREBAY_TEST_DATA. Figures are per CPU-second of all processes of a loader, so a busy machine shows less than it should.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=infra/bench/loader
data=${FOREBAY_TEST_DATA:?the folder of the test data}

forebay=${FOREBAY:-}
if [ -z "$forebay" ]; then
  cargo build --quiet --workspace --bins
  forebay=${CARGO_TARGET_DIR:-target}/debug/forebay
fi
lake=${LAKE:-}
if [ -z "$lake" ]; then
  lake=$(mktemp -d)
  trap 'rm -rf "$lake"' EXIT
fi
mkdir -p "$lake"
lake=$(cd "$lake" && pwd)

quietly() { "$@" > "$lake/log" 2>&1 || { cat "$lake/log" >&2; exit 1; }; }
if [ ! -d "$lake/photos" ]; then
  tar --zstd -xf "$data/flower_photos_val.tar.zst" -C "$lake"
  PHOTOS=$lake/flower_photos_val quietly "$forebay" ingest examples/photos.toml --set dataset="$lake/photos"
fi
if [ ! -d "$lake/tokens" ]; then
  quietly "$forebay" ingest examples/rust-code.toml --set dataset="$lake/tokens" --set pack.sequence_length=1024
fi
exec_python=${PYTHON:-python3}
"$exec_python" "$here/measure.py" --forebay "$forebay" --lake "$lake" --rounds "${ROUNDS:-5}" "$@"
