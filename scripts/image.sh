#!/usr/bin/env bash
# Paddock's container image, FROM scratch: paddock, runsc, runc, what the sandboxes' runtime image is made of, and the libraries that it
# and runc need. Nothing is fetched: what a start downloads has to be in .cache/downloads, where `make demo` leaves it.
#   scripts/image.sh [NAME:TAG]
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-paddock:latest} version=${VERSION:-$(git describe --tags --always --dirty)} cache=.cache/downloads
context=$(mktemp -d /tmp/paddock-image-XXXXXX)
trap 'rm -rf "$context"' EXIT
root=$context/rootfs
newest() { ls -dt "$cache"/$1 2>/dev/null | head -n 1; }
node=$(newest 'node-linux-*') modules=$(newest 'modules-*')
[ -n "$node" ] && [ -n "$modules" ] || { echo "image: $cache has no Node and no modules: run 'make demo' once" >&2; exit 1; }

mkdir -p "$root"/usr/bin "$root"/usr/share "$root"/etc/ssl/certs "$root"/var/cache/paddock "$root"/var/lib/paddock "$root"/var/lib/paddock-store "$root"/run
mkdir -m 1777 "$root/tmp"
# Volumes take over owner and mode from here: members of the store run as a user of their own in Kubernetes.
chmod 711 "$root/var/lib/paddock" && chmod 700 "$root/var/lib/paddock-store"
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$root/usr/bin/paddock" ./cmd/paddock
cp bin/runsc bin/runc "$root/usr/bin/"
cp -a "$node" "$modules" "$root/var/cache/paddock/"
cp -a /usr/share/zoneinfo "$root/usr/share/"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
# The loader and the libraries, at the places where this machine has them: those of Node go on into the sandboxes.
for program in bin/runc "$node/files/node"; do
  ldd "$program" | awk '/=> \//{print $3} $1 ~ /^\//{print $1}'
done | sort -u | while read -r lib; do
  mkdir -p "$root$(dirname "$lib")"
  cp -L "$lib" "$root$lib"
done
printf 'root:x:0:0:root:/:/nonexistent\nnobody:x:65534:65534:nobody:/:/nonexistent\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
cp deploy/Dockerfile "$context/"
docker build -q -t "$name" "$context" >/dev/null
echo "$name: $(docker image inspect -f '{{.Size}}' "$name" | awk '{printf "%d MiB", $1 / 1048576}')"
