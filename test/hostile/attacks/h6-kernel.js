// Reads and writes what is the kernel's, as far as files go.
module.exports = async () => {
  const secret = ['/proc/kcore', '/proc/kallsyms', '/proc/keys', '/proc/key-users', '/proc/timer_list', '/proc/sysrq-trigger', '/proc/config.gz', '/proc/kmsg', '/proc/kpagecount', '/proc/kpageflags',
    '/proc/slabinfo', '/proc/vmallocinfo', '/proc/interrupts', '/proc/sched_debug', '/proc/modules', '/sys/firmware/acpi/tables', '/sys/firmware/dmi/tables/DMI', '/sys/kernel/security',
    '/sys/class/dmi/id/product_uuid', '/dev/mem', '/dev/port', '/dev/cpu/0/msr', '/proc/acpi/wakeup', '/proc/scsi/scsi'];
  for (const f of secret) {
    await refused(f, () => {
      const fd = fs.openSync(f, 'r');
      const b = Buffer.alloc(256);
      const n = fs.readSync(fd, b);
      if (n === 0) throw Object.assign(new Error('nothing in it'), { code: 'EMPTY' });
      return b.subarray(0, n).toString('latin1');
    });
  }
  for (const f of ['/sys/fs/cgroup/memory/memory.limit_in_bytes', '/sys/fs/cgroup/pids.max', '/sys/fs/cgroup/release_agent', '/sys/fs/cgroup/cgroup.procs', '/sys/kernel/mm/ksm/run', '/proc/self/attr/current',
    '/proc/sys/kernel/ns_last_pid', '/proc/sys/user/max_user_namespaces', '/proc/irq/0/smp_affinity']) {
    await refused(`write ${f}`, () => fs.writeFileSync(f, '1'));
  }
  const os = require('os');
  await refused('priority', () => { os.setPriority(0, -10); });
  await refused('setuid 0', () => process.setuid(0));
  await refused('setgid 0', () => process.setgid(0));
  await refused('setgroups', () => process.setgroups([0]));
  await refused('setuid of another', () => process.setuid(1001));
  await refused('chroot by node', () => process.binding('os'));
  await refused('spawn as root', () => { const r = child.spawnSync(process.execPath, ['-v'], { uid: 0, gid: 0 }); if (r.error) throw r.error; return r.status; });
  await refused('device node', () => { fs.mkdirSync('/tmp/d'); fs.copyFileSync('/dev/vda', '/tmp/d/vda'); });
  await refused('symlink through proc', () => fs.readFileSync('/proc/1/root/../../../etc/shadow'));
  const status = fs.readFileSync('/proc/self/status', 'utf8');
  const field = (name) => (new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status) || [])[1];
  must('no new privileges', field('NoNewPrivs') === '1' || field('NoNewPrivs') === undefined, field('NoNewPrivs'));
  must('a filter', field('Seccomp') === '2' || field('Seccomp') === undefined, field('Seccomp'));
  return report;
};
