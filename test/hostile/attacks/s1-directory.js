// Tries to put something else where the host made its sockets.
const net = require('net');
module.exports = async () => {
  const dir = '/run/paddock';
  for (const name of ['link', 'egress']) {
    await refused(`unlink ${name}`, () => fs.unlinkSync(`${dir}/${name}`));
    await refused(`rename ${name}`, () => fs.renameSync(`${dir}/${name}`, `${dir}/old`));
    await refused(`rename over ${name}`, () => { fs.symlinkSync('/etc/passwd', '/tmp/s'); try { fs.renameSync('/tmp/s', `${dir}/${name}`); } finally { fs.unlinkSync('/tmp/s'); } });
    await refused(`symlink ${name}`, () => fs.symlinkSync('/run/docker.sock', `${dir}/${name}2`));
    await refused(`link ${name}`, () => fs.linkSync(`${dir}/${name}`, `/tmp/${name}`));
    await refused(`chmod ${name} by the directory`, () => fs.chmodSync(dir, 0o777));
    await refused(`bind beside ${name}`, () => new Promise((yes, no) => net.createServer().on('error', no).listen(`${dir}/${name}3`, () => yes('bound'))));
    await refused(`replace ${name}`, () => fs.writeFileSync(`${dir}/${name}`, 'x'));
  }
  await refused('a directory', () => fs.mkdirSync(`${dir}/d`));
  await refused('remount', () => fs.rmdirSync(dir));
  return report;
};
