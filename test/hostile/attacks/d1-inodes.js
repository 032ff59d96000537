// Makes files until there are no more to be had; the call must still answer.
module.exports = async (input) => {
  for (let i = 0; input.endless; i++) fs.closeSync(fs.openSync(`/tmp/i${i}`, 'w'));
  let n = 0;
  await refused('no end of files', () => { for (; n < 5000; n++) fs.closeSync(fs.openSync(`/tmp/i${n}`, 'w')); }, 'ENOSPC');
  await refused('a directory', () => fs.mkdirSync('/tmp/more'), 'ENOSPC');
  must('no more than the limit', n <= 1024, n);
  return report;
};
