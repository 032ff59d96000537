// Asks for more threads than there may be processes and threads together.
module.exports = async (input) => {
  const many = `let left = 8; for (let i = 0; i < 8; i++) require('fs').stat('/', () => { if (--left === 0) console.log(require('fs').readdirSync('/proc/self/task').length); });`;
  const run = child.spawnSync(process.execPath, ['-e', many], { env: { PATH: '/paddock/bin', UV_THREADPOOL_SIZE: '1000' }, timeout: 4000 });
  must('a thousand threads', !(run.status === 0 && +run.stdout > 512), `${run.stdout} ${run.signal || run.status}`);
  return report;
};
