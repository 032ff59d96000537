// Throws errors that are too large, too deep or too strange to be told.
module.exports = (input) => {
  const e = new Error('x');
  switch (input.how) {
    case 'large':
      e.message = 'x'.repeat(32 << 20);
      e.name = '\u0000\r\n{"level":"ERROR","msg":"forged"}\u001b[2J';
      e.stack = 'at '.repeat(8 << 20);
      break;
    case 'deep':
      for (let c = e, i = 0; i < 1e5; i++) c = c.cause = new Error('cause ' + i);
      break;
    case 'circular':
      e.cause = e;
      e.errors = [e, e];
      break;
    case 'accessors':
      for (const key of ['name', 'message', 'stack', 'code', 'cause', 'constructor']) Object.defineProperty(e, key, { get() { while (input.spin) {} throw e; } });
      break;
    case 'symbol':
      e.message = Symbol('x');
      e.name = { toString() { throw e; } };
      break;
    case 'surrogates':
      e.message = '\ud800'.repeat(1000) + '\udfff\u2028\u2029\ufeff';
  }
  throw e;
};
