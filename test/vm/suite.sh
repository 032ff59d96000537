#!/bin/sh
# Runs inside the machine: every test binary in /suite, one after the other, and says what came of it on the console. A file
# NAME.args beside NAME has the arguments and NAME.dir the working directory. Ends the machine.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TMPDIR=/tmp
. /suite/env
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
for dir in /run /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$dir"; done
chmod 755 /run
ip link set lo up
hostname vm
echo "vm: $(uname -srv)"
echo "vm: $(grep -c ^processor /proc/cpuinfo) CPUs, $(sed -n 's/^MemTotal: *//p' /proc/meminfo), emulated"
echo "vm: control groups: $(grep cgroup /proc/mounts | tr '\n' ';') controllers $(cat /sys/fs/cgroup/cgroup.controllers)"

passed=0 failed=0
for test in $(cat /suite/order); do
  began=$(cut -d. -f1 /proc/uptime)
  echo "vm: == $test $(cat "/suite/$test.args")"
  cd "$(cat "/suite/$test.dir")" || exit 1
  # shellcheck disable=SC2046 # the arguments are words
  { "/suite/$test" -test.v -test.timeout 2h $(cat "/suite/$test.args") 2>&1; echo $? >/tmp/code; } |
    tee "/tmp/$test.log" | while IFS= read -r line; do
    case $line in *"--- PASS: "* | *"--- FAIL: "* | *"--- SKIP: "*) echo "$line" ;;
      "=== RUN "*/*) echo "vm: $(cut -d' ' -f1 /proc/uptime) ${line#=== RUN }" ;;
    esac
  done
  code=$(cat /tmp/code)
  p=$(grep -cE '^ *--- PASS' "/tmp/$test.log")
  f=$(grep -cE '^ *--- (FAIL|SKIP)' "/tmp/$test.log")
  if [ $code -ne 0 ] || [ "$f" -ne 0 ]; then
    [ "$f" -ne 0 ] || f=1
    echo "vm: output of $test"
    grep -v '^=== ' "/tmp/$test.log"
  fi
  passed=$((passed + p)) failed=$((failed + f))
  [ "$p" -ne 0 ] || failed=$((failed + 1))
  echo "vm: == $test: $p passed, $f failed, exit code $code, $(($(cut -d. -f1 /proc/uptime) - began))s"
  rm -f "/tmp/$test.log"
done
echo "vm: took $(cut -d. -f1 /proc/uptime)s"
echo "vm: $passed passed, $failed failed"
poweroff -f
