// Fills memory that the language's heap limit does not see.
module.exports = (input) => {
  const hoard = [];
  switch (input.how) {
    case 'some': // more than it may have, and no more
      for (let i = 0; i < 128; i++) hoard.push(Buffer.alloc(4 << 20, 1));
      return 'it fits';
    case 'buffer':
      for (;;) hoard.push(Buffer.alloc(4 << 20, 1));
    case 'arraybuffer':
      for (;;) {
        const b = new Uint8Array(8 << 20);
        for (let i = 0; i < b.length; i += 4096) b[i] = 1;
        hoard.push(b);
      }
    case 'wasm': {
      for (;;) {
        const m = new WebAssembly.Memory({ initial: 160, maximum: 65536 });
        new Uint8Array(m.buffer).fill(1);
        hoard.push(m);
      }
    }
    case 'strings':
      for (let i = 0; ; i++) hoard.push(Buffer.alloc(4 << 20, 97 + (i % 26)).toString('latin1'));
  }
};
