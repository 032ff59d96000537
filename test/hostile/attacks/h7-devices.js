// Opens devices, makes some, and types into a terminal that is not there.
module.exports = async (input) => {
  const harmless = [...input.emulated, 'null', 'zero', 'full', 'random', 'urandom', 'fd', 'stdin', 'stdout', 'stderr', 'ptmx', 'pts', 'tty', 'console', 'shm', 'mqueue', 'core'];
  const there = fs.readdirSync('/dev');
  must('only harmless devices', there.every((d) => harmless.includes(d)), there.join());
  for (const d of ['mem', 'kmem', 'port', 'kmsg', 'sda', 'vda', 'nvme0n1', 'loop0', 'loop-control', 'fuse', 'kvm', 'net/tun', 'tty0', 'tty1', 'ttyS0', 'hpet', 'rtc0', 'vhost-net', 'vsock', 'uinput', 'input/event0', 'dri/card0', 'snapshot',
    'autofs', 'btrfs-control', 'mapper/control', 'cpu/0/msr', 'watchdog', 'userfaultfd', 'bus/usb/001/001', 'console', 'tty']) {
    if (!input.emulated.includes(d.split('/')[0])) await refused(d, () => fs.openSync(`/dev/${d}`, 'r+'));
  }
  const tty = require('tty');
  must('no terminal', ![0, 1, 2].some((fd) => tty.isatty(fd)));
  await refused('remove a device', () => fs.unlinkSync('/dev/null'));
  await refused('a device in place of another', () => fs.renameSync('/dev/null', '/dev/zero'));
  return report;
};
