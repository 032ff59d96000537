// Writes wherever it should not.
module.exports = async () => {
  const files = ['/x', '/paddock/agent.js', '/paddock/x', '/paddock/bin/node', '/etc/hosts', '/etc/resolv.conf', '/etc/passwd', '/etc/x', '/dev/x', '/dev/mqueue/x',
    '/dev/shm/x', '/run/x', '/run/paddock/x', '/run/paddock/link', '/sys/x', '/sys/fs/cgroup/x', '/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname',
    '/proc/sys/vm/drop_caches', '/proc/sys/fs/file-max', '/proc/sys/net/ipv4/ip_forward', '/proc/sysrq-trigger', '/proc/self/oom_score_adj_x', '/proc/1/x', '/var/x',
    '/usr/x', '/home/x', '/root/x', '/lib/x', '/bin/x', '/boot/x', '/mnt/x', '/opt/x', '/srv/x', '/proc/self/uid_map', '/proc/self/gid_map', '/proc/self/setgroups'];
  for (const f of files) await refused(`write ${f}`, () => fs.writeFileSync(f, '0'));
  for (const f of ['/paddock/agent.js', '/etc/passwd', '/run/paddock/egress']) {
    await refused(`unlink ${f}`, () => fs.unlinkSync(f));
    await refused(`rename ${f}`, () => fs.renameSync(f, f + '.old'));
    await refused(`chmod ${f}`, () => fs.chmodSync(f, 0o777));
    await refused(`chown ${f}`, () => fs.chownSync(f, 1000, 1000));
    await refused(`utimes ${f}`, () => fs.utimesSync(f, 1, 1));
    await refused(`truncate ${f}`, () => fs.truncateSync(f, 0));
  }
  for (const d of ['/', '/paddock', '/etc', '/run/paddock', '/dev']) await refused(`mkdir in ${d}`, () => fs.mkdirSync(`${d}/made`));
  await refused('link out of /tmp', () => fs.linkSync('/etc/passwd', '/tmp/passwd'));
  try { fs.writeFileSync('/proc/self/oom_score_adj', '-1000'); } catch {} // the host looks at what came of it
  await refused('setuid bit', () => { fs.writeFileSync('/tmp/s', 'x'); fs.chmodSync('/tmp/s', 0o4755); const r = child.spawnSync('/tmp/s'); if (r.error) throw r.error; });
  return report;
};
