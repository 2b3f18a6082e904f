#!/bin/bash
# Two processes on one machine, to try how work is shared: flagfiles/cluster/two_processes.sh TASK --FLAG=VALUE ...
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
address=localhost:${PORT:-29500}
vtcav "$@" --coordinator="$address" --num_processes=2 --process_id=1 &
vtcav "$@" --coordinator="$address" --num_processes=2 --process_id=0
wait
