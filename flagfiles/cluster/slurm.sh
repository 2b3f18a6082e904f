#!/bin/bash
# Maps of all videos, shared among 16 processes on 4 nodes: sbatch flagfiles/cluster/slurm.sh
# Repeat it after a failure or a time limit: finished results are used again.
#SBATCH --job-name=vtcav
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue

# A folder that all nodes see, for the run and, of tcav, for --cache_dir. Compiled programs can stay on each node.
export JAX_COMPILATION_CACHE_DIR=${SLURM_TMPDIR:-/tmp}/vtcav-compiled

# One process per task and GPU. Each task sees all GPUs of its node, since JAX selects the one with the task's number on
# the node. `auto` reads the addresses and numbers that Slurm sets.
srun --gpu-bind=none --kill-on-bad-exit=1 vtcav attribute --flagfile="${1:-flagfiles/attribute.flags}" --coordinator=auto
