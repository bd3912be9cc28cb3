#!/usr/bin/env bash
# Ingest of every Rust source in cargo's registry with exact and near dedup: wall time, peak memory, median of ROUNDS.
set -euo pipefail
cd "$(dirname "$0")/../.."
forebay=${CARGO_TARGET_DIR:-target}/debug/forebay
lake=$(mktemp -d)
trap 'rm -rf "$lake"' EXIT
for round in $(seq "${ROUNDS:-5}"); do
  python3 - "$forebay" ingest examples/rust-code.toml --set dataset="$lake/$round" --json <<'PY'
import json, resource, subprocess, sys
out = json.loads(subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
peak = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"seconds": round(out["seconds"], 2), "cpu_s": round(peak.ru_utime + peak.ru_stime, 2), "peak_rss_mb": peak.ru_maxrss // 1024, "read": out["read"], "rows_digest": out["rows_digest"][:12]}))
PY
done | tee "$lake/results"
python3 -c 'import json,statistics,sys; rows=[json.loads(l) for l in open(sys.argv[1])]; print("median", statistics.median(r["seconds"] for r in rows), "s, peak", max(r["peak_rss_mb"] for r in rows), "MB")' "$lake/results"
