#!/usr/bin/env bash
# A whole cluster on this machine, for trying it out: three members of the store, three controllers, two routers, with an
# authority and certificates of their own. Serves until Ctrl-C, then removes everything. As root.
#   scripts/cluster.sh [DIR]     DIR keeps data between runs (default: a temporary directory)
# ISOLATION=runc or gvisor, MIN_READY=2, PORT=18080 and up are taken from the environment; CHECK=1 runs a call and ends.
set -euo pipefail
cd "$(dirname "$0")/.."
paddock=${PADDOCK_BIN:-$PWD/bin/paddock} isolation=${ISOLATION:-gvisor} min_ready=${MIN_READY:-2} port=${PORT:-18080}
kept=${1:-} dir=${1:-$(mktemp -d /tmp/paddock-cluster-XXXXXX)}
mkdir -p "$dir" && chmod 711 "$dir"
cache=$PWD/.cache/downloads
pids=()

stop() {
  trap - EXIT INT TERM
  echo "stopping"
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill -TERM "${pids[i]}" 2>/dev/null || true; done
  wait || true
  [ -n "$kept" ] || rm -rf "$dir"
}
trap stop EXIT
trap 'exit 0' INT TERM

fail() { echo "cluster: $1; its log ends:" >&2; tail -n 20 "$2" >&2; exit 1; }
ready() { # what, ready file, log, pid
  for _ in $(seq 600); do
    [ -s "$2" ] && return
    kill -0 "$4" 2>/dev/null || fail "$1 did not start" "$3"
    sleep 0.2
  done
  fail "$1 was not ready within two minutes" "$3"
}

certs=$dir/certs
[ -e "$dir/ca/ca.pem" ] || "$paddock" certs init --dir "$dir/ca" >/dev/null
issue() { "$paddock" certs issue --ca "$dir/ca" --out "$certs" --ttl 720h "$@" >/dev/null; }
issue --role etcd-admin --name setup
members=""
for i in 1 2 3; do
  issue --role etcd --name "m$i" --host 127.0.0.1
  issue --role controller --name "c$i" --host 127.0.0.1
  members+="${members:+,}m$i=https://127.0.0.1:$((port + 10 + i))"
done
for i in 1 2; do issue --role router --name "r$i"; done

echo "starting three members of the store"
endpoints=""
for i in 1 2 3; do
  endpoints+="${endpoints:+,}https://127.0.0.1:$((port + 20 + i))"
  "$paddock" store --name "m$i" --client "https://127.0.0.1:$((port + 20 + i))" --peer "https://127.0.0.1:$((port + 10 + i))" --members "$members" \
    --cert "$certs/etcd-m$i.pem" --cert-key "$certs/etcd-m$i-key.pem" --ca "$certs/ca.pem" --dir "$dir/store$i" >"$dir/m$i.log" 2>&1 &
  pids+=($!)
done
echo "giving each role its rights in the store"
for _ in $(seq 60); do
  access=$("$paddock" store access --etcd-endpoints "$endpoints" --etcd-ca "$certs/ca.pem" --etcd-cert "$certs/etcd-admin-setup.pem" \
    --etcd-key "$certs/etcd-admin-setup-key.pem" 2>&1) && break
  sleep 1
done || { echo "$access" >&2; exit 1; }
rm -f "$certs"/etcd-admin-setup*
store=(--etcd-endpoints "$endpoints" --ca "$certs/ca.pem")

total=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
for i in 1 2 3; do
  echo "starting controller $i of 3 ($isolation)"
  rm -f "$dir/c$i.ready"
  "$paddock" controller "${store[@]}" --cert "$certs/controller-c$i.pem" --cert-key "$certs/controller-c$i-key.pem" --data-dir "$dir/c$i" \
    --cache-dir "$cache" --listen "127.0.0.1:$((port + 30 + i))" --status "127.0.0.1:$((port + 40 + i))" --isolation "$isolation" --min-ready "$min_ready" \
    --memory-budget "$((total / 5))MiB" --uid-base $((2000000000 + i * 100000)) --ready-file "$dir/c$i.ready" >"$dir/c$i.log" 2>&1 &
  pids+=($!)
  ready "controller $i" "$dir/c$i.ready" "$dir/c$i.log" $!
done
for i in 1 2; do
  rm -f "$dir/r$i.ready"
  "$paddock" router "${store[@]}" --cert "$certs/router-r$i.pem" --cert-key "$certs/router-r$i-key.pem" --data-dir "$dir/r$i" --secrets "$dir/secrets" \
    --http "127.0.0.1:$((port + i - 1))" --grpc "127.0.0.1:$((port + 50 + i))" --ready-file "$dir/r$i.ready" >"$dir/r$i.log" 2>&1 &
  pids+=($!)
  ready "router $i" "$dir/r$i.ready" "$dir/r$i.log" $!
done

cat <<TEXT

A cluster serves: three members of the store, three controllers, two routers.
  export PADDOCK_URL=http://127.0.0.1:$port PADDOCK_KEY=@$dir/secrets/operator.key PADDOCK_TENANT=default
  bin/paddock run examples/functions/quote.js --input '{"country":"AT","items":[{"cents":1000,"quantity":2}]}'
The other router is at http://127.0.0.1:$((port + 1)). Logs are in $dir.
TEXT
if [ -n "${CHECK:-}" ]; then
  for p in "$port" $((port + 1)); do
    PADDOCK_URL=http://127.0.0.1:$p PADDOCK_KEY=@$dir/secrets/operator.key PADDOCK_TENANT=default "$paddock" run - <<<'() => "served"' || exit 1
  done
  exit 0
fi
echo "Ctrl-C ends it."
while [ -n "$(jobs -pr)" ]; do # killing a part is what it is for
  wait -n || true
  [ -z "$(jobs -pr)" ] || echo "a part has ended; $(jobs -pr | wc -l) go on"
done
