// Opens files until there are no descriptors left; the call must still answer.
module.exports = async () => {
  const open = [];
  await refused('no end of descriptors', () => { for (let i = 0; i < 5000; i++) open.push(fs.openSync('/dev/null')); }, 'EMFILE', 'ENFILE');
  await refused('a process', () => new Promise((_, no) => { const c = node('1'); c.on('error', no); c.on('exit', () => no(new Error('started'))); }));
  must('no more than the limit', open.length <= 256, open.length);
  return report;
};
