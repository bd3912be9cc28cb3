#!/usr/bin/env bash
# The demo against a real S3 server on loopback, started here and stopped at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
exports=$(infra/s3/start.sh start)
eval "$exports"
trap 'infra/s3/start.sh stop >&2' EXIT
# A prefix of its own, so that every demo begins with an empty lake.
infra/demo/run.sh "${FOREBAY_TEST_S3%/}/demo-$(date +%s)"
