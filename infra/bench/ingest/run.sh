#!/usr/bin/env bash
# The ingest benches, one after the other: run.sh [figure …], all without an argument.
#
#   FOREBAY   the command (default: of the last build)
#   SCRATCH   corpora, datasets and the rivals' environments, up to 40 GB (default: below the temporary folder)
#   RIVALS    1 also runs the rivals; their environments are set up once (pip)
#   ROUNDS    repeats of each measurement (default 3)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
forebay=${FOREBAY:-${CARGO_TARGET_DIR:-target}/debug/forebay}
scratch=${SCRATCH:-${TMPDIR:-/tmp}/forebay-bench}
mkdir -p "$scratch"

environment() {
  local name=$1
  shift
  [ -x "$scratch/$name/bin/python" ] || python3 -m venv "$scratch/$name"
  "$scratch/$name/bin/pip" install --quiet "$@"
}
environment venv pyarrow==26.0.1 regex rensa==0.5.0 psutil pillow==13.0.0 imagehash==4.3.2 opencv-python-headless==5.0.0.93
rivals=()
if [ "${RIVALS:-}" = 1 ]; then
  environment venv-datatrove 'datatrove[processing,io,multilingual]==0.10.1' psutil
  rivals=(--rivals)
fi

figures=("$@")
[ ${#figures[@]} -gt 0 ] || figures=(text_speed rules memory increment pages curve pictures recall)
for figure in "${figures[@]}"; do
  arguments=()
  case $figure in text_speed | rules | pictures) arguments=("${rivals[@]}") ;; esac
  "$scratch/venv/bin/python" "$here/$figure.py" --forebay "$forebay" --scratch "$scratch" --rounds "${ROUNDS:-3}" "${arguments[@]}"
done
