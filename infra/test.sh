#!/usr/bin/env bash
# All tests. Starts a throw-away S3 server for those that need one; where it cannot be started they are skipped and say so, as are
# those on real data where there is none.
# Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${FOREBAY_TEST_DATA:-}" ] && [ -d ../shared/data ]; then
  export FOREBAY_TEST_DATA=$PWD/../shared/data
fi

if [ -z "${FOREBAY_TEST_S3:-}" ]; then
  if exports=$(infra/s3/start.sh start); then
    eval "$exports"
    trap 'infra/s3/start.sh stop >&2' EXIT
  else
    echo "test: no S3 server, its tests are skipped" >&2
  fi
fi
cargo test --workspace --no-fail-fast "$@"
