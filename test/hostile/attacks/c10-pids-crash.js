// Starts processes until no more can be had, and then ends as crashes do: the counter of refused forks tells the two apart.
module.exports = async () => {
  const hold = 'setInterval(() => {}, 1000)';
  for (let failed = 0, i = 0; failed < 3 && i < 400; i++) {
    try {
      await new Promise((yes, no) => node(hold).on('spawn', yes).on('error', no));
    } catch { failed++; }
    try {
      const many = child.spawn(process.execPath, ['-e', hold], { stdio: 'ignore', env: { PATH: '/paddock/bin', UV_THREADPOOL_SIZE: '1000' } });
      many.on('error', () => {});
    } catch { failed++; }
  }
  crash();
  await sleep(2000);
  return 'alive';
};
