#!/usr/bin/env bash
# Sourced by the other scripts: INT and TERM, to a script or to its group, end it and what it runs: one line, exit code 130.
# Not for running by itself; `bash scripts/signals.sh --help` prints this.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  sed -n '2,3s/^# //p' "$0"
  exit 0
fi
set -euo pipefail
unset CDPATH # a cd of ours goes nowhere else, and prints nothing

export SAFER_STEER_SPEAKER=${SAFER_STEER_SPEAKER:-$$} # who says the line: the first process (safer_steer/interrupts.py)

interrupted() {
  trap '' INT TERM # a second signal says it no second time
  if [[ $SAFER_STEER_SPEAKER == "$$" ]]; then
    echo "interrupted; run the same command again to continue from here" >&2
  fi
  exit 130
}
trap interrupted INT TERM

# Put before a command, it holds INT and TERM back: from one that is over in a moment, or from one until it listens.
hold=(env --block-signal=INT --block-signal=TERM)
"${hold[@]}" true 2>/dev/null || hold=()

start() { exec "${hold[@]}" "$@"; } # COMMAND... : in place of this script; a signal that comes before it listens is not lost

foreground() { # COMMAND... : and then this script continues; INT and TERM of this script end the command first
  local child='' code=0 told=''
  trap 'told=1; [[ ! $child ]] || kill -TERM "$child" 2>/dev/null || true' INT TERM
  "$@" &
  child=$!
  if [[ $told ]]; then kill -TERM "$child" 2>/dev/null || true; fi
  while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done # a signal ends a wait before the command has ended
  wait "$child" || code=$? # bash keeps the code of an ended command
  if [[ $told ]] || ((code == 130)); then interrupted; fi
  trap interrupted INT TERM
  return "$code"
}
