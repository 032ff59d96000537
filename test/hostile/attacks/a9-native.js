// Keeps native code busy, which no timer of the language interrupts.
module.exports = (input) => {
  switch (input.how) {
    case 'regexp':
      return /^(a+)+$/.test('a'.repeat(40) + 'b');
    case 'pbkdf2':
      return require('crypto').pbkdf2Sync('x', 'y', 2 ** 31 - 1, 64, 'sha512').length;
    case 'bigint':
      return String((2n ** 20000000n) ** 3n / 7n ** 1000000n).length;
    case 'wasm': { // (loop br 0)
      const code = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 9, 1, 7, 0, 3, 64, 12, 0, 11, 11]);
      return new WebAssembly.Instance(new WebAssembly.Module(code)).exports.f();
    }
    case 'sort':
      return new Array(1 << 22).fill(0).map((_, i) => i ^ 0x5555).sort(() => { for (let i = 0; i < 1e4; i++); return 1; }).length;
  }
};
