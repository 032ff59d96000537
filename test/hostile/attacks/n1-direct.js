// Goes out without the proxy: every way that JavaScript has, in the agent's process and in a plain one.
const net = require('net');
const dgram = require('dgram');
module.exports = async (input) => {
  const tcp = (host, port) => () => new Promise((yes, no) => net.connect({ host, port }).on('connect', function () { this.destroy(); yes('connected'); }).on('error', no));
  for (const [host, port] of input.targets) await refused(`tcp ${host}:${port}`, tcp(host, port));
  await refused('fetch', () => fetch(`http://127.0.0.1:${input.port}/`).then((r) => r.status));
  await refused('udp', () => new Promise((yes, no) => {
    const s = dgram.createSocket('udp4');
    s.on('error', no);
    s.send('x', input.port, '127.0.0.1', (e) => (e ? no(e) : yes('sent')));
  }));
  await refused('listen', () => new Promise((yes, no) => net.createServer().on('error', no).listen(0, '0.0.0.0', () => yes('listening'))));
  const plain = nodeSync(`
    const net = require('net'), dgram = require('dgram'), dns = require('dns'), inspector = require('inspector');
    const targets = ${JSON.stringify(input.targets)};
    let left = targets.length + 3;
    const done = (what, how) => { console.log(JSON.stringify([what, how])); if (--left === 0) process.exit(); };
    for (const [host, port] of targets) try { net.connect({ host, port }).on('connect', () => done('tcp ' + host, 'connected')).on('error', (e) => done('tcp ' + host, e.code)); } catch (e) { done('tcp ' + host, e.code); }
    try { const s = dgram.createSocket('udp4'); s.on('error', (e) => done('udp', e.code)); s.send('x', ${input.port}, '127.0.0.1', (e) => done('udp', e ? e.code : 'sent')); } catch (e) { done('udp', e.code); }
    dns.lookup('example.com', (e) => done('dns.lookup', e ? e.code : 'resolved'));
    try { dns.resolve4('example.com', (e) => done('dns.resolve', e ? e.code : 'resolved')); } catch (e) { done('dns.resolve', e.code); }
    setTimeout(() => process.exit(), 1500);`);
  for (const line of plain.out.trim().split('\n').filter(Boolean)) {
    const [what, how] = JSON.parse(line);
    must(`plain ${what}`, !['connected', 'resolved'].includes(how), how);
  }
  must('the plain process said something', plain.out.length > 0, plain.err.slice(0, 300));
  return report;
};
