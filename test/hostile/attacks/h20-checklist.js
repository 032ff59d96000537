// Goes through the list that tools for breaking out of containers go through: what a careless configuration would have left open.
module.exports = async (input) => {
  const read = (f) => { try { return fs.readFileSync(f, 'utf8'); } catch { return ''; } };
  const status = read('/proc/self/status');
  const bits = { DAC_READ_SEARCH: 2, NET_ADMIN: 12, NET_RAW: 13, SYS_MODULE: 16, SYS_RAWIO: 17, SYS_CHROOT: 18, SYS_PTRACE: 19, SYS_ADMIN: 21, SYS_BOOT: 22, MKNOD: 27, SETFCAP: 31, BPF: 39 };
  const effective = BigInt('0x' + ((/^CapEff:\s*([0-9a-f]+)/m.exec(status) || [])[1] || '0'));
  for (const [name, bit] of Object.entries(bits)) must(`no CAP_${name}`, (effective >> BigInt(bit)) % 2n === 0n);
  must('pid 1 is not the host\'s', !/systemd|init/.test(read('/proc/1/comm')), read('/proc/1/comm'));
  must('it sees its own processes only', fs.readdirSync('/proc').filter((n) => /^\d+$/.test(n)).length < 10);
  must('its directory is its own root', fs.readlinkSync('/proc/self/cwd') === '/' && read('/proc/self/cwd/etc/shadow') === '');
  for (const name of fs.readdirSync('/proc/self/fd')) { // a descriptor of a directory outside (CVE-2024-21626)
    let to = '';
    try { to = fs.readlinkSync(`/proc/self/fd/${name}`); } catch { continue; }
    if (to.startsWith('/') && to !== '/proc/self/fd') await refused(`out by descriptor ${name} (${to})`, () => fs.readFileSync(`/proc/self/fd/${name}/../../..${input.planted}`));
  }
  await refused('overwrite what runs (CVE-2019-5736)', () => fs.openSync('/proc/self/exe', 'r+'));
  await refused('overwrite what runs as pid 1', () => fs.openSync('/proc/1/exe', 'r+'));
  for (const f of ['/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/crio/crio.sock', '/var/run/secrets/kubernetes.io/serviceaccount/token', '/host', '/rootfs', '/mnt/host', '/.dockerinit']) {
    await refused(`what is mounted at ${f}`, () => fs.statSync(f));
  }
  for (const f of ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/kernel/hotplug', '/proc/sys/fs/binfmt_misc/register', '/proc/sysrq-trigger', '/proc/sys/vm/panic_on_oom', '/sys/kernel/uevent_helper', '/sys/fs/cgroup/release_agent', '/sys/kernel/debug/x', '/proc/self/attr/exec']) {
    await refused(`helper by ${f}`, () => fs.writeFileSync(f, '|/tmp/x'));
  }
  const mounts = read('/proc/self/mountinfo').split('\n').filter(Boolean).map((l) => l.split(' '));
  // /var is where the test has put its native code; a sysfs is the kernel's, and D5 and H6 try to write to it
  const writable = mounts.filter((m) => !m[5].split(',').includes('ro') && !/^\/(tmp|proc|dev|var)(\/|$)/.test(m[4]) && m[m.indexOf('-') + 1] !== 'sysfs').map((m) => `${m[3]} at ${m[4]} ${m[5]}`);
  must('nothing of the host is mounted to be written', writable.length === 0, writable.join('; '));
  must('no name of a tenant in the host\'s paths', !mounts.some((m) => /mallory|canary/.test(m.join(' '))));
  const calls = JSON.parse(child.spawnSync('/var/probe', ['calls'], { encoding: 'utf8', timeout: 5000, env: {} }).stdout);
  for (const name of ['bpf', 'ptrace attach', 'ptrace traceme', 'init_module', 'finit_module', 'kexec_load', 'open_by_handle_at', 'mount', 'unshare user', 'perf_event_open', 'userfaultfd']) must(name, calls[name] !== undefined && calls[name] !== 0, calls[name]);
  const sockets = JSON.parse(child.spawnSync('/var/probe', ['sockets'], { encoding: 'utf8', timeout: 5000, env: {} }).stdout);
  for (const name of ['packet raw', 'inet raw', 'netlink raw', 'vsock stream']) must(name, sockets[name] !== undefined && sockets[name] !== 0, sockets[name]);
  return report;
};
