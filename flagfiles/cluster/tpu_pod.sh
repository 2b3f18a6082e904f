#!/bin/bash
# The same command on all hosts of a Cloud TPU slice: flagfiles/cluster/tpu_pod.sh TPU_NAME ZONE TASK --FLAG=VALUE ...
# For example: flagfiles/cluster/tpu_pod.sh my-v5e-16 us-west4-a discover --flagfile=discover.flags
# Run folder, videos and, of tcav, --cache_dir must be in a folder that all hosts see, such as a mounted bucket.
set -euo pipefail
name=$1 zone=$2
shift 2
printf -v command '%q ' vtcav "$@" --coordinator=auto
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$command"
