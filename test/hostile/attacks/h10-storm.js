// Asks the host for work that all its tenants pay for, as fast as it can.
module.exports = () => {
  const run = child.spawnSync('/var/probe', ['storm'], { encoding: 'utf8', timeout: 5000, env: {} });
  return { results: JSON.parse(run.stdout) };
};
