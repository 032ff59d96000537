// Says on its way out what might be taken for a line of the operator's log, or for another end than it had.
module.exports = async () => {
  fs.writeSync(2, '\n{"time":"2000-01-01T00:00:00Z","level":"ERROR","msg":"forged by a tenant"}\n\u001b[31m\u0000' + 'x'.repeat(100000) + '\n');
  crash();
  await sleep(2000);
};
