#!/usr/bin/env bash
# Certificates for compose.yaml, in certs/, by the image itself. Keep certs/ca apart from a machine that serves.
set -euo pipefail
cd "$(dirname "$0")"
image=${PADDOCK_IMAGE:-paddock:latest}
mkdir -p certs && chmod 700 certs
paddock() { docker run --rm -v "$PWD/certs:/certs" "$image" "$@"; }
[ -e certs/ca/ca.pem ] || paddock certs init --dir /certs/ca
issue() { paddock certs issue --ca /certs/ca --ttl 8760h "$@"; }
issue --role etcd --name store --host store --out /certs/store
issue --role etcd-admin --name setup --out /certs/setup
issue --role controller --name controller --host controller --out /certs/controller
issue --role router --name router --out /certs/router
