// Makes system calls through gates and tables that the filter might not know.
module.exports = async () => {
  const probe = (...args) => child.spawnSync('/var/probe', args, { encoding: 'utf8', timeout: 1500, killSignal: 'SIGKILL', env: {} });
  for (const gate of ['int80', 'x32']) {
    const run = probe(gate);
    const [pid, errno] = (run.stdout || '').trim().split(' ').map(Number);
    // killed, hung (the thread was), or an error number: 1 EPERM, 14 EFAULT, 38 ENOSYS
    const refusal = run.signal !== null || run.status > 1 || [1, 14, 38].includes(errno === undefined ? -pid : errno);
    must(gate, refusal && !(run.error && run.error.code === 'ENOENT'), `${run.signal} ${run.status} ${run.stdout}`);
  }
  const run = probe('beyond');
  must('numbers that nobody has given out', run.signal === null, run.signal);
  const results = run.stdout ? JSON.parse(run.stdout) : {};
  for (const [number, errno] of Object.entries(results)) must(`number ${number}`, errno === 1 || errno === 38, errno);
  return report;
};
