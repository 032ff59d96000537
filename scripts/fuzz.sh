#!/usr/bin/env bash
# Every fuzz target of the tree in turn, TIME each (default 30s), by one worker. Ends in one line:
# "fuzz: N targets, N executions, N findings". A finding leaves its input in the package's testdata/fuzz: commit it with the mend.
set -uo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}
out=$(mktemp)
trap 'rm -f "$out"' EXIT
targets=0 executions=0 findings=0
while IFS=: read -r file target; do
  targets=$((targets + 1))
  nice -n 10 go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -parallel 1 >"$out" 2>&1
  rc=$?
  n=$(sed -nE 's/.*execs: ([0-9]+).*/\1/p' "$out" | tail -1)
  executions=$((executions + ${n:-0}))
  verdict=ok
  if [ $rc -ne 0 ]; then
    findings=$((findings + 1)) verdict=FOUND
  elif [ -z "$n" ]; then # no worker ran: not a pass
    findings=$((findings + 1)) verdict="DID NOT RUN"
  fi
  printf '%-12s %-18s %10s executions  %s\n' "$verdict" "$target" "${n:-0}" "$(dirname "$file")"
  [ "$verdict" = ok ] || cat "$out"
done < <(git grep -E '^func Fuzz[A-Z][A-Za-z0-9]*\(' -- '*_test.go' | sed -E 's/:func (Fuzz[A-Za-z0-9]*)\(.*/:\1/')
echo "fuzz: $targets targets, $executions executions, $findings findings"
[ $findings -eq 0 ] && [ $targets -gt 0 ]
