#!/usr/bin/env bash
# Start the command on every host, detached, and wait for its end. On Cloud TPU the hosts find each other by themselves:
# --distributed lets jax.distributed read the slice's metadata. The command is the one that resumes, so running it twice is safe.
#
#   launch/run.sh sft-7b python -m chestx_jax.train --config=configs/sft.py --workdir=/mnt/runs/sft-7b --distributed
#
# Ends with 0 when the command did on all hosts, with its status where it failed, with 75 when the slice was lost.
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

[ $# -ge 2 ] || { echo "usage: launch/run.sh RUN COMMAND [ARGUMENT...]" >&2 && exit 2; }
run=$1
shift
command=$(printf '%q ' "$@")
log="$run.log"
status="$run.status"

# Detached from ssh, so that a dropped connection stops nothing; a command that still runs is left alone.
start=$(printf '%q' "cd ~/$CHECKOUT && PATH=\$HOME/venv/bin:\$PATH $command >> ~/$log 2>&1; echo \$? > ~/$status")
on_all_hosts "[ -f $run.pid ] && kill -0 \$(cat $run.pid) 2>/dev/null && exit 0
  rm -f $status; setsid nohup bash -c $start >/dev/null 2>&1 </dev/null & echo \$! > $run.pid"

lost_slice() {
  [ "$(state)" != ACTIVE ] || return 1
  echo "$(date +%T) $NAME was taken away: $(state)" >&2
}

while true; do
  sleep "$POLL_SECONDS"
  ! lost_slice || exit 75
  # One line a host: its exit status, or 'running'. A host that does not answer is asked again.
  answers=$(on_all_hosts "cat $status 2>/dev/null || echo running" 2>/dev/null) || continue
  on_first_host "tail -n 1 $log" 2>/dev/null || true
  failed=$(grep -vx -e running -e 0 <<<"$answers" | head -n 1) || failed=
  if [ -z "$failed" ] && grep -qx running <<<"$answers"; then
    continue
  fi
  # A preemption first ends the command (well, after saving, or badly, when its peers are gone) and then the slice.
  sleep "$POLL_SECONDS"
  ! lost_slice || exit 75
  [ -n "$failed" ] || exit 0
  echo "the command ended with status $failed; the last lines of $log:" >&2
  on_all_hosts "[ \"\$(cat $status 2>/dev/null)\" = 0 ] || tail -n 20 $log" >&2 || true
  exit "$failed"
done
