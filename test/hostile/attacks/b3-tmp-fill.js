// Fills /tmp; the call must still answer.
module.exports = async () => {
  const chunk = Buffer.alloc(1 << 20, 1);
  const fd = fs.openSync('/tmp/fill', 'w');
  let size = 0;
  await refused('write beyond the end', () => {
    for (; size < 64; size++) fs.writeSync(fd, chunk);
  }, 'ENOSPC', 'EFBIG');
  await refused('a second file', () => {
    const other = fs.openSync('/tmp/other', 'w');
    for (let i = 0; i < 64; i++) fs.writeSync(other, chunk);
  }, 'ENOSPC', 'EFBIG');
  must('no more than 16 MiB', size <= 16, size);
  return report;
};
