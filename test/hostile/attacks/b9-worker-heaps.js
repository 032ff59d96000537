// Gives each of many workers a heap of its own without a limit worth the name.
const { Worker } = require('worker_threads');
module.exports = () => {
  for (let i = 0; i < 6; i++) {
    new Worker('const h = []; for (;;) h.push(new Array(1000).fill(h.length))', {
      eval: true, resourceLimits: { maxOldGenerationSizeMb: 4096, maxYoungGenerationSizeMb: 512 },
    }).on('error', () => {});
  }
  return new Promise(() => {});
};
