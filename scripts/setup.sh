#!/usr/bin/env bash
# Installs what building, the demo and the tests need on Debian: as root with apt, else it says exactly what to install.
#   scripts/setup.sh build    what `make build` and `make demo` need
#   scripts/setup.sh docker   the same, and a Docker engine that answers (started here if none runs)
set -euo pipefail
want=${1:-build}

need=()
have() { command -v "$1" >/dev/null 2>&1; }
have gcc || need+=(gcc libc6-dev)
have make || need+=(make)
have curl || need+=(curl)
have pkg-config || need+=(pkg-config)
[ -e /usr/include/seccomp.h ] || need+=(libseccomp-dev)
[ -e /etc/ssl/certs/ca-certificates.crt ] || need+=(ca-certificates)
[ -d /usr/share/zoneinfo/Europe ] || need+=(tzdata)
[ "$want" = docker ] && ! have dockerd && need+=(docker.io)

for tool in go npm; do
  if ! have $tool; then
    echo "setup: $tool is missing: install Go 1.26 (https://go.dev/dl) and Node.js with npm, then run this again" >&2
    exit 1
  fi
done
if [ ${#need[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "setup: as root, run: apt-get install -y --no-install-recommends ${need[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${need[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi
[ "$want" = docker ] || exit 0

answers() { docker_ping=$(curl -sf --max-time 5 --unix-socket /var/run/docker.sock http://docker/_ping) && [ "$docker_ping" = OK ]; }
if ! answers; then
  if [ "$(id -u)" != 0 ]; then
    echo "setup: no Docker engine answers at /var/run/docker.sock: as root, run: dockerd &" >&2
    exit 1
  fi
  echo "setup: starting dockerd (log: /var/log/dockerd.log)"
  rm -f /var/run/docker.pid
  setsid nohup dockerd >/var/log/dockerd.log 2>&1 </dev/null &
  for _ in $(seq 60); do
    answers && exit 0
    sleep 1
  done
  echo "setup: dockerd did not answer within 60 s; its log ends:" >&2
  tail -20 /var/log/dockerd.log >&2
  exit 1
fi
