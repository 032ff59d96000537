// Looks for what is the host's or other tenants'.
module.exports = async (input) => {
  await refused('the planted file', () => fs.readFileSync(input.planted, 'utf8'));
  for (const up of ['/proc/1/root', '/proc/self/root', '/proc/self/cwd', '/run/paddock/..', '/run/paddock/../..', '/proc/self/fd/1/../..']) {
    await refused(`the planted file by ${up}`, () => fs.readFileSync(up + input.planted, 'utf8'));
  }
  for (const f of input.paths) await refused(f, () => fs.readdirSync(f));
  for (const f of ['/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/var/lib/docker', '/var/lib/paddock', '/etc/shadow', '/root/.ssh',
    '/dev/kmsg', '/dev/mem', '/dev/sda', '/dev/vda', '/dev/fuse', '/dev/kvm', '/dev/net/tun', '/sys/kernel/debug', '/sys/fs/bpf']) {
    await refused(f, () => {
      const got = fs.statSync(f).isDirectory() ? fs.readdirSync(f) : fs.readFileSync(f);
      if (got.length === 0) throw Object.assign(new Error('nothing in it'), { code: 'EMPTY' });
      return got;
    });
  }
  const pids = fs.readdirSync('/proc').filter((n) => /^\d+$/.test(n));
  must('only its own processes', pids.length <= 2, pids.join());
  const mine = /\/([0-9a-f]{32}) \/run\/paddock /.exec(fs.readFileSync('/proc/self/mountinfo', 'utf8')); // its own directory's name on the host
  const sockets = fs.existsSync('/proc/net/unix') ? fs.readFileSync('/proc/net/unix', 'utf8').split('\n').filter((l) => /\/run\/|docker|containerd|@/.test(l) && !/\/run\/paddock\/(link|egress)/.test(l) && !(mine && l.includes(mine[1]))) : [];
  must('no sockets of others', sockets.length === 0, sockets.join('; '));
  must('its own directory only', fs.existsSync('/run/paddock') && (() => { try { return fs.readdirSync('/run/paddock').length <= 2; } catch { return true; } })());
  // nobody's ids, home or groups but its own
  must('not root', process.getuid() !== 0 && process.getgid() !== 0, process.getuid());
  const status = fs.readFileSync('/proc/self/status', 'utf8');
  for (const cap of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
    const m = new RegExp(`${cap}:\\s*([0-9a-f]+)`).exec(status);
    must(cap, m === null || /^0+$/.test(m[1]), m && m[1]);
  }
  return report;
};
