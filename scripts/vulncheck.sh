#!/usr/bin/env bash
# Known vulnerabilities in what paddock, runsc and runc call (govulncheck) and in the runtime image's packages (npm audit). Both ask
# databases on the network: where one cannot be reached that is said, and it counts as a failure, not as a pass.
#   scripts/vulncheck.sh           everything that is shipped
#   scripts/vulncheck.sh paddock   paddock alone, as `make verify` does: a database that cannot be reached is said and is no failure,
#                                  so that one can work without a network; what is known still is one
set -uo pipefail
cd "$(dirname "$0")/.."
only=${1:-}
tool=$PWD/.cache/verify/govulncheck
mkdir -p "$(dirname "$tool")"
failed=0 unchecked=()
unreachable='fetching vulnerabilities|no such host|connection refused|i/o timeout|audit endpoint returned an error|ENOTFOUND|ECONNREFUSED'

if ! (cd tools/verify && go build -o "$tool" golang.org/x/vuln/cmd/govulncheck); then
  [ "$only" = paddock ] || exit 1
  echo "vulncheck: NOT CHECKED: paddock (govulncheck cannot be built here)"
  exit 0
fi

check() { # what, command…
  local what=$1 text rc
  shift
  text=$("$@" 2>&1) && rc=0 || rc=$?
  printf '\n== %s\n%s\n' "$what" "$text"
  if grep -qE "$unreachable" <<<"$text"; then
    unchecked+=("$what")
  elif [ "$rc" -ne 0 ]; then
    failed=1
  fi
}

if [ "$only" = paddock ]; then # the tool itself is looked at in no time: it tells whether there is a database
  probe=$("$tool" -mode=binary "$tool" 2>&1)
  if grep -qE "$unreachable" <<<"$probe"; then
    echo "vulncheck: NOT CHECKED: paddock (the vulnerability database could not be reached: run make vulncheck where there is a network)"
    exit 0
  fi
fi
check "paddock" "$tool" ./...
if [ "$only" != paddock ]; then
  check "runsc" "$tool" -C tools/runsc gvisor.dev/gvisor/runsc
  check "runc" "$tool" -C tools/runc -tags seccomp github.com/opencontainers/runc
  check "packages in the node image" npm --prefix runtimes/node audit --omit=dev --package-lock-only
fi

echo
if [ ${#unchecked[@]} -gt 0 ]; then
  for what in "${unchecked[@]}"; do echo "vulncheck: NOT CHECKED: $what (the database could not be reached)"; done
  failed=1
fi
echo "vulncheck: Node.js itself and the host's kernel are in no database that is asked here: follow nodejs.org and your distribution"
[ $failed -eq 0 ] && echo "vulncheck: nothing known" || { echo "vulncheck: FAILED" >&2; exit 1; }
