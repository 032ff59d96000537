// Prints without an end: without a line's end, binary, by the console, the streams and the descriptors.
module.exports = async (input) => {
  const chunk = require('crypto').randomBytes(1 << 16);
  const until = Date.now() + 700;
  switch (input.how) {
    case 'console':
      while (Date.now() < until) console.log(chunk.toString('latin1'));
      break;
    case 'streams':
      while (Date.now() < until) { process.stdout.write(chunk); process.stderr.write('\x1b[2J{"level":"ERROR","msg":"forged"}\n\u2028\r'); }
      break;
    case 'lines':
      while (Date.now() < until) console.error('');
      break;
    case 'descriptor': {
      const many = Buffer.concat([chunk, Buffer.from('\n{"time":"2000-01-01T00:00:00Z","level":"ERROR","msg":"forged"}\n')]);
      while (Date.now() < until) try { fs.writeSync(1, many); } catch (e) { if (e.code !== 'EAGAIN') throw e; await sleep(1); }
      break;
    }
  }
  return 'alive';
};
