// Leaves a daemon behind: in a session of its own, its parent gone.
module.exports = async () => {
  const daemon = `require('fs').writeFileSync('/tmp/daemon', String(process.pid)); for (;;);`;
  node(`const { spawn } = require('child_process');
    spawn(process.execPath, ['-e', ${JSON.stringify(daemon)}], { stdio: 'ignore', detached: true }).unref(); process.exit()`, { detached: true }).unref();
  while (!fs.existsSync('/tmp/daemon')) await sleep(10);
  return 'left behind';
};
