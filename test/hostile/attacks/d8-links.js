// Puts links, pipes and sockets wherever the host might look, and swaps them while it is looked at.
const net = require('net');
module.exports = async (input) => {
  const targets = [input.planted, '/etc/shadow', '/proc/self/root', '/run/paddock/link', '../../../../../../..' + input.planted];
  for (const [i, t] of targets.entries()) fs.symlinkSync(t, `/tmp/link${i}`);
  for (const name of ['config.json', 'facts.json', 'tenant', 'link', 'egress', 'output', 'pid', 'log', 'rootfs', 'core', 'core.1']) {
    fs.symlinkSync(input.planted, `/tmp/${name}`);
  }
  fs.writeFileSync('/tmp/own', 'x');
  const server = net.createServer();
  await new Promise((yes, no) => { server.on('listening', yes); server.on('error', no); server.listen('/tmp/socket'); }).catch(() => {});
  for (let i = 0; i < targets.length; i++) {
    await refused(`read by link ${i}`, () => { const got = fs.readFileSync(`/tmp/link${i}`, 'utf8'); return got; });
    await refused(`write by link ${i}`, () => fs.writeFileSync(`/tmp/link${i}`, 'x'));
  }
  for (let i = 0; i < 2000; i++) { // swap
    fs.renameSync('/tmp/link0', '/tmp/swap');
    fs.renameSync('/tmp/link1', '/tmp/link0');
    fs.renameSync('/tmp/swap', '/tmp/link1');
  }
  return report;
};
