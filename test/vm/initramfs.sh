#!/bin/busybox sh
# The first process of the machine: loads what the disk needs, mounts the disk and cgroup v2, and hands over to suite.sh.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t devtmpfs dev /dev
for m in $($B cat /modules/order); do
  $B insmod "/modules/$m.ko" || { echo "vm: module $m cannot be loaded"; $B poweroff -f; }
done
$B mount -t ext4 -o noatime /dev/vda /disk || { echo "vm: no disk"; $B poweroff -f; }
$B umount /proc
$B mount -o move /dev /disk/dev
exec $B switch_root /disk /suite.sh
