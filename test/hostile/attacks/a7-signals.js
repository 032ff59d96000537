// Will not hear of signals, and has children that will not either.
module.exports = () => {
  const deaf = `for (const s of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT', 'SIGTSTP'])
    try { process.on(s, () => {}) } catch {}`;
  new Function('process', deaf)(process);
  for (let i = 0; i < 3; i++) node(deaf + '; while (1) {}', { detached: true });
  while (1) {}
};
