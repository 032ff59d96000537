// Crashes with secrets in memory.
module.exports = async () => {
  const limits = fs.readFileSync('/proc/self/limits', 'utf8');
  must('no core files', /Max core file size\s+0\s+0/.test(limits));
  const run = nodeSync(CRASH);
  must('a child crashed', run.signal !== null || run.status > 128, run.signal || run.status);
  must('nothing was written', fs.readdirSync('/tmp').filter((n) => /core/.test(n)).length === 0);
  return report;
};
