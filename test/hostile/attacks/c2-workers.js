// Starts a hundred workers.
const { Worker } = require('worker_threads');
module.exports = () => {
  for (let i = 0; i < 100; i++) new Worker('setInterval(() => {}, 1000)', { eval: true }).on('error', () => {});
  return new Promise(() => {});
};
