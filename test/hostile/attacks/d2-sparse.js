// Makes files look larger than the disk.
module.exports = async () => {
  fs.writeFileSync('/tmp/sparse', 'x');
  await refused('truncate to 64 MiB', () => fs.truncateSync('/tmp/sparse', 64 << 20), 'EFBIG', 'ENOSPC', 'EINVAL');
  await refused('truncate to 8 EiB', () => fs.truncateSync('/tmp/sparse', Number.MAX_SAFE_INTEGER), 'EFBIG', 'ENOSPC', 'EINVAL');
  await refused('write far out', () => fs.writeSync(fs.openSync('/tmp/sparse', 'r+'), 'x', 1 << 30), 'EFBIG', 'ENOSPC', 'EINVAL');
  return report;
};
