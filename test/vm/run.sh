#!/usr/bin/env bash
# Boots Debian's kernel with cgroup v2 alone in an emulated machine and runs there tests of what touches control groups. Needs root, qemu-system-x86_64 and e2fsprogs; the kernel is unpacked, not installed. No KVM.
#   test/vm/run.sh             the control groups, the keeper, the service by runc and gVisor; the console's log is .cache/vm/console.log
#   ONLY="oci-runc" and so on  other suites, by the names below; they want a machine that has little else to do
# Ends in "vm: N passed, M failed" and exits 0 only when nothing failed.
set -euo pipefail
cd "$(dirname "$0")/../.."
repo=$PWD
cache=$repo/.cache/vm
only=${ONLY:-cgroup keeper service-runc service-gvisor}
slow=${PADDOCK_TEST_PATIENCE:-10}
memory=${VM_MEMORY:-6144} # MiB

for tool in qemu-system-x86_64 mkfs.ext4 dpkg-deb apt-get; do
  command -v $tool >/dev/null || { echo "vm: $tool is missing: apt-get install qemu-system-x86 e2fsprogs" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "vm: the files of the disk belong to root: run as root" >&2; exit 1; }

mkdir -p "$cache/deb"
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
if [ ! -e "$cache/$kernel/boot/vmlinuz-${kernel#linux-image-}" ]; then
  echo "vm: fetching $kernel"
  (cd "$cache/deb" && apt-get -qq -o APT::Sandbox::User=root download "$kernel" busybox-static)
  rm -rf "${cache:?}/$kernel" "$cache/busybox"
  dpkg-deb -x "$cache"/deb/"$kernel"_*.deb "$cache/$kernel"
  dpkg-deb -x "$cache"/deb/busybox-static_*.deb "$cache/busybox"
fi
release=${kernel#linux-image-}
busybox=$cache/busybox/bin/busybox
modules=$cache/$kernel/lib/modules/$release/kernel

# what containers run: made here, with the network, and taken along
go test -tags vm -count=1 -run '^TestImages$' ./test/vm >/dev/null

stage=$(mktemp -d "$cache/stage-XXXXXX")
trap 'rm -rf "$stage"' EXIT

# the initial file system: busybox and the modules for a virtio disk with ext4
ram=$stage/ram
mkdir -p "$ram"/{bin,proc,dev,disk,modules}
cp "$busybox" "$ram/bin/"
cp test/vm/initramfs.sh "$ram/init"
chmod 755 "$ram/init"
for m in drivers/virtio/{virtio_ring,virtio,virtio_pci_legacy_dev,virtio_pci_modern_dev,virtio_pci} drivers/block/virtio_blk \
  lib/crc16 fs/mbcache crypto/crc32c_generic fs/jbd2/jbd2 fs/ext4/ext4 fs/overlayfs/overlay; do
  cp "$modules/$m.ko" "$ram/modules/"
  basename "$m" >>"$ram/modules/order"
done
(cd "$ram" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$stage/initrd"

# the disk: busybox for the commands that tests use, this host's C library, the runtimes, the images, the tests
disk=$stage/disk
mkdir -p "$disk"/{bin,sbin,etc,proc,sys,dev,run,tmp,root,var/lib,var/cache,suite,usr/bin,usr/sbin,usr/share,lib64}
chmod 1777 "$disk/tmp"
cp "$busybox" "$disk/bin/"
for applet in $("$busybox" --list); do [ -e "$disk/bin/$applet" ] || ln -s busybox "$disk/bin/$applet"; done
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$disk/etc/passwd"
printf 'root:x:0:\n' >"$disk/etc/group"
printf '127.0.0.1 localhost\n' >"$disk/etc/hosts"
mkdir -p "$disk/etc/ssl/certs"
cp -L /etc/ssl/certs/ca-certificates.crt "$disk/etc/ssl/certs/"
cp -a /usr/share/zoneinfo "$disk/usr/share/"
# links where that can be done: nothing here changes them
cp -al /var/cache/paddock-test "$disk/var/cache/" 2>/dev/null || cp -a /var/cache/paddock-test "$disk/var/cache/"
libraries() { # of a program, which may have none
  { ldd "$1" 2>/dev/null || true; } | sed -nE 's/^[^/]*(\/[^ ]+) \(.*/\1/p' | while read -r lib; do
    mkdir -p "$(dirname "$disk$lib")"
    cp -L "$lib" "$disk$lib"
  done
}
for program in "${PADDOCK_RUNC:-bin/runc}" "${PADDOCK_RUNSC:-bin/runsc}"; do
  install -m 755 "$program" "$disk/usr/bin/$(basename "$program")"
  libraries "$program"
done
libraries "$(find /var/cache/paddock-test/downloads -path '*/files/node' -type f | head -1)" # the image is made from the host's
cp test/vm/suite.sh "$disk/suite.sh"
chmod 755 "$disk/suite.sh"

# tests look for their repository: what they read of it
for part in go.mod pool/enginetest/testdata examples/hostile; do
  mkdir -p "$(dirname "$disk$repo/$part")"
  cp -r "$part" "$disk$repo/$part"
done
CGO_ENABLED=0 nice -n 5 go build -o "$disk/usr/bin/paddock" ./cmd/paddock
cat >"$disk/suite/env" <<EOF
export PADDOCK_RUNC=/usr/bin/runc PADDOCK_RUNSC=/usr/bin/runsc PADDOCK_BIN=/usr/bin/paddock PADDOCK_TEST_PATIENCE=$slow
EOF
suite() { # NAME PACKAGE ARGUMENTS...
  case " $only " in *" $1 "*) ;; *) return 0 ;; esac
  local name=$1 package=$2
  shift 2
  mkdir -p "$disk$repo/$package"
  [ -e "$stage/${package//\//-}" ] || CGO_ENABLED=0 nice -n 5 go test -tags vm -c -o "$stage/${package//\//-}" "./$package"
  ln "$stage/${package//\//-}" "$disk/suite/$name"
  echo "$*" >"$disk/suite/$name.args"
  echo "$repo/$package" >"$disk/suite/$name.dir"
  echo "$name" >>"$disk/suite/order"
}
suite cgroup pool/cgroup
suite keeper pool/oci/keeper
suite service-runc test/vm -test.run 'TestImages|TestOnlyCgroup2|TestUpRunc'
suite oci-runc pool/oci -test.skip GVisor
suite pool-runc pool/pooltest -test.run TestRunc
suite service-gvisor test/vm -test.run TestUpGVisor
suite oci-gvisor pool/oci -test.run GVisor
suite pool-gvisor pool/pooltest -test.run TestGVisor

truncate -s 3G "$stage/image"
mkfs.ext4 -q -F -d "$disk" -E root_owner=0:0 "$stage/image"

echo "vm: booting $kernel"
nice -n 5 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" -nic none -display none -monitor none -serial stdio \
  -no-reboot -kernel "$cache/$kernel/boot/vmlinuz-$release" -initrd "$stage/initrd" \
  -append "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1" \
  -drive "file=$stage/image,if=virtio,format=raw,cache=unsafe" </dev/null |
  sed -u -e 's/\r//g' -e "s|$repo/||g" | tee "$cache/console.log"
grep -q '^vm: [1-9][0-9]* passed, 0 failed$' "$cache/console.log"
