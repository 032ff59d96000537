// Has a child eat the memory, and answers as if nothing had been.
module.exports = () => new Promise((resolve) => {
  node('const h = []; for (;;) h.push(Buffer.alloc(1 << 20, 1))').on('exit', (code, signal) => resolve(`child: ${signal || code}`));
});
