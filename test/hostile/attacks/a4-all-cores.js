// Spins in eight workers and four processes at once.
const { Worker } = require('worker_threads');
module.exports = () => {
  for (let i = 0; i < 8; i++) new Worker('while (1) {}', { eval: true, resourceLimits: { maxOldGenerationSizeMb: 4 } }).on('error', () => {});
  for (let i = 0; i < 2; i++) node('while (1) {}').on('error', () => {});
  return new Promise(() => {});
};
