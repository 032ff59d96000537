// Makes threads and processes of every kind; the host looks at each of them meanwhile.
const { Worker } = require('worker_threads');
module.exports = async () => {
  for (let i = 0; i < 2; i++) new Worker('setInterval(() => {}, 1000)', { eval: true }).on('error', () => {});
  node('setInterval(() => {}, 1000)', { detached: true }).on('error', () => {});
  node(`require('child_process').spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { detached: true, stdio: 'ignore' }).unref(); setInterval(() => {}, 1000)`).on('error', () => {});
  for (let i = 0; i < 8; i++) fs.stat('/', () => {});
  await sleep(600);
  return 'looked at';
};
