#!/bin/bash
# Run a job in eight shards on a SLURM cluster, from the root of a checkout or with romacli installed:
#
#     sbatch --array=0-7 examples/slurm_array.sh PHOTOS PAIRS OUT
#     sbatch --dependency=afterany:ID examples/slurm_array.sh PHOTOS PAIRS OUT
#
# The second line waits for the array, whose ID the first printed, and merges the shards. Resubmit killed tasks with the
# number of all shards after OUT, which SLURM no longer knows: `sbatch --array=3 ... OUT 8`. Finished pairs are kept.
# OUT must be on a file system that all nodes share.
#SBATCH --job-name=romacli
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -eu

photos=$1 pairs=$2 out=$3
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    exec romacli match "$photos" --pairs "$pairs" -o "$out" --quiet \
        --shard "$SLURM_ARRAY_TASK_ID/${4:-$SLURM_ARRAY_TASK_COUNT}"
fi
romacli match "$photos" --pairs "$pairs" -o "$out"
