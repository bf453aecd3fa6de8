#!/bin/sh
# Run a job in shards with GNU parallel, on this machine or those of a login file (ssh) that share this folder and OUT:
#
#     examples/gnu_parallel.sh PHOTOS PAIRS OUT [PIECES] [PARALLEL'S OPTIONS...]
#     examples/gnu_parallel.sh photos pairs.txt job 32 --sshloginfile nodes.txt --jobs 1
#
# A shard that fails is retried twice, and the results of the others are merged in any case. Run it again after a power
# cut: finished pairs are kept.
set -eu

photos=$1 pairs=$2 out=$3 pieces=${4:-8}
[ $# -gt 4 ] && shift 4 || shift $#
# --quote keeps spaces in names; --workdir makes relative names mean the same on other machines.
seq 0 $((pieces - 1)) |
    parallel --quote --workdir . --retries 3 "$@" \
        romacli match "$photos" --pairs "$pairs" -o "$out" --quiet --shard "{}/$pieces" ||
    echo "not every shard was completed" >&2
romacli merge "$out"
