#!/usr/bin/env bash
# Everything, with the race detector, on every engine. Ends in one line: "tests: N passed, N failed, N skipped".
set -uo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh docker || exit 1
make --no-print-directory build || exit 1
export PADDOCK_RUNSC=${PADDOCK_RUNSC:-$PWD/bin/runsc} PADDOCK_RUNC=${PADDOCK_RUNC:-$PWD/bin/runc} PADDOCK_BIN=$PWD/bin/paddock
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
started=$SECONDS
failed=0

step() { printf '\n== %s (%ss)\n' "$1" $((SECONDS - started)); }

step "gofmt, vet, licences, known vulnerabilities"
make --no-print-directory verify 2>&1 | tee "$out/verify" || failed=1

step "agent (node --test)"
(cd runtimes/node && node --test --test-reporter=tap test/*.test.js) >"$out/node.tap" 2>&1 || failed=1
node_pass=$(sed -n 's/^# pass //p' "$out/node.tap" | tail -1)
node_fail=$(sed -n 's/^# fail //p' "$out/node.tap" | tail -1)
node_skip=$(sed -n 's/^# skipped //p' "$out/node.tap" | tail -1)
echo "agent: ${node_pass:-0} passed, ${node_fail:-?} failed, ${node_skip:-0} skipped"
[ "${node_fail:-1}" = 0 ] || { grep -B2 -A25 '^ *not ok' "$out/node.tap" | head -150; }

step "go test -race ./... (the engines' suites run real containers)"
# Two packages at a time: the timings inside real sandboxes need a core each.
go test -race -p 2 -timeout 20m -json ./... >"$out/go.json" 2>"$out/go.err" &
pid=$!
while kill -0 $pid 2>/dev/null; do
  for _ in $(seq 30); do kill -0 $pid 2>/dev/null || break; sleep 1; done
  printf '  %4ss  %s packages done\n' $((SECONDS - started)) "$(grep -cE '"Action":"(pass|fail|skip)","Package":"[^"]*","Elapsed"' "$out/go.json")"
done
wait $pid
go_rc=$?
cat "$out/go.err" | head -50
go_failed=0
go run ./internal/testsum "$out/go.json" >"$out/sum" || go_failed=1
[ $go_rc -eq 0 ] || [ $go_failed -ne 0 ] || failed=1 # it failed, and no test did
cat "$out/sum"
read -r go_pass go_fail go_skip < <(sed -nE 's/^go: ([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' "$out/sum")

# A few failures on a busy machine are looked at again, alone: each must pass twice, and is reported as flaky by name.
if [ $go_failed -ne 0 ] && go run ./internal/testsum -again "$out/go.json" >"$out/again" && [ -s "$out/again" ]; then
  step "again, alone: $(wc -l <"$out/again") failed"
  steady=1
  while read -r pkg name; do
    go test -race -count=2 -timeout 10m -run "^$name\$" "$pkg" </dev/null && echo "flaky: $pkg $name failed once and passed twice alone" || steady=0
  done <"$out/again"
  if [ $steady = 1 ]; then go_pass=$((go_pass + go_fail)) go_fail=0 go_failed=0; fi
fi
[ $go_failed -eq 0 ] || failed=1

pass=$((${go_pass:-0} + ${node_pass:-0})) fail=$((${go_fail:-1} + ${node_fail:-1})) skip=$((${go_skip:-0} + ${node_skip:-0}))
[ $fail -eq 0 ] && [ $failed -ne 0 ] && fail=1
grep 'NOT CHECKED' "$out/verify"
printf '\ntook %ss\ntests: %s passed, %s failed, %s skipped\n' $((SECONDS - started)) $pass $fail $skip
[ $fail -eq 0 ] && [ $failed -eq 0 ]
