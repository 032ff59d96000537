// Runs native code: what came of each system call is compared with what is to be expected of it here.
module.exports = (input) => {
  const run = child.spawnSync('/var/probe', [input.mode], { encoding: 'utf8', timeout: 5000, env: {} });
  if (run.error && run.error.code !== 'ETIMEDOUT') throw run.error;
  return { results: run.stdout ? JSON.parse(run.stdout) : {}, signal: run.signal, status: run.status };
};
