// Fills /tmp to the brim and makes a thousand small files besides.
module.exports = async () => {
  const chunk = Buffer.alloc(1 << 20, 1);
  const fd = fs.openSync('/tmp/fill', 'w');
  await refused('write beyond the end', () => {
    for (let i = 0; i < 64; i++) fs.writeSync(fd, chunk);
  });
  let files = 0;
  await refused('a thousand files more', () => {
    for (; files < 4000; files++) fs.writeFileSync(`/tmp/f${files}`, 'x');
  }, 'ENOSPC');
  report.facts.files = files;
  return report;
};
