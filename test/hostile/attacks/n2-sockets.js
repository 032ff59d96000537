// Makes sockets of every family but the one that it needs.
module.exports = (input) => {
  const run = child.spawnSync('/var/probe', ['sockets'], { encoding: 'utf8', timeout: 5000, env: {} });
  for (const [name, errno] of Object.entries(JSON.parse(run.stdout))) must(name, errno !== 0, errno);
  return report;
};
