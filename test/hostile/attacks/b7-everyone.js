// What every tenant does at the same time: eats memory in whichever way its number says.
const v8 = require('v8');
module.exports = (input) => {
  const hoard = [];
  switch (input.n % 4) {
    case 0:
      for (;;) hoard.push(Buffer.alloc(4 << 20, 1));
    case 1:
      v8.setFlagsFromString('--max-old-space-size=8192');
      for (;;) hoard.push(new Array(100000).fill(hoard.length));
    case 2: {
      for (let i = 0; i < 64; i++) try { fs.writeFileSync(`/tmp/f${i}`, Buffer.alloc(1 << 20, 1)); } catch { break; }
      for (;;) hoard.push(Buffer.alloc(1 << 20, 1));
    }
    default:
      for (let i = 0; i < 4; i++) node('const h = []; for (;;) h.push(Buffer.alloc(1 << 20, 1))').on('error', () => {});
      for (;;) hoard.push(Buffer.alloc(4 << 20, 1));
  }
};
