// Reaches for the control groups: its own limits, others' processes, the agent that the kernel runs at a group's end.
module.exports = async () => {
  const roots = ['/sys/fs/cgroup', '/sys/fs/cgroup/memory', '/sys/fs/cgroup/pids', '/sys/fs/cgroup/cpu', '/sys/fs/cgroup/devices', '/sys/fs/cgroup/freezer', '/sys/fs/cgroup/unified', '/proc/1/root/sys/fs/cgroup'];
  const files = ['memory.limit_in_bytes', 'memory.max', 'memory.oom_control', 'pids.max', 'cpu.cfs_quota_us', 'cpu.max', 'cgroup.procs', 'tasks', 'release_agent', 'notify_on_release', 'devices.allow', 'freezer.state', 'cgroup.kill', 'cgroup.freeze'];
  for (const root of roots) {
    for (const file of files) await refused(`write ${root}/${file}`, () => fs.writeFileSync(`${root}/${file}`, '1'));
    await refused(`a group in ${root}`, () => fs.mkdirSync(`${root}/made`));
  }
  await refused('a process of another group', () => fs.writeFileSync('/sys/fs/cgroup/cgroup.procs', String(process.ppid)));
  const own = (() => { try { return fs.readFileSync('/proc/self/cgroup', 'utf8'); } catch { return ''; } })();
  must('no path of the host in /proc/self/cgroup', !/paddock\/[0-9a-f]{8}|docker\/[0-9a-f]{64}/.test(own), own.slice(0, 300));
  return report;
};
