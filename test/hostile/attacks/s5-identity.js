// Claims to be somebody else, to the proxy and on its own link's directory. The tenant whom it names may go where it may not.
const net = require('net');
module.exports = async (input) => {
  const ask = (lines) => new Promise((resolve) => {
    const s = net.connect('/run/paddock/egress');
    let got = '';
    s.on('data', (d) => { got += d.toString('latin1'); if (got.includes('\r\n\r\n')) s.destroy(); });
    s.on('error', () => {});
    s.on('close', () => resolve(got));
    s.setTimeout(700, () => s.destroy());
    s.write(lines.join('\r\n') + '\r\n\r\n');
  });
  const to = `127.0.0.1:${input.allowed}`;
  const claims = [[], ['Paddock-Tenant: canary'], ['Paddock-Container: ' + 'a'.repeat(32)], ['Proxy-Authorization: Basic Y2FuYXJ5Og=='], ['Authorization: Bearer canary'],
    ['X-Forwarded-For: canary'], ['Forwarded: for=canary'], ['Via: canary'], ['X-Real-IP: 127.0.0.1'], ['PROXY: canary']];
  for (const claim of claims) {
    const answer = await ask([`CONNECT ${to} HTTP/1.1`, `Host: ${to}`, ...claim]);
    must(claim.join() || 'no claim', !/^HTTP\/1\.\d 2/.test(answer), answer.split('\r\n')[0]);
  }
  const answer = await ask(['PROXY TCP4 127.0.0.1 127.0.0.1 1 1', `CONNECT ${to} HTTP/1.1`, `Host: ${to}`]);
  must('the PROXY protocol', !/^HTTP\/1\.\d 2/.test(answer), answer.split('\r\n')[0]);
  for (const path of ['/run/paddock/../paddock/link', '/proc/1/root/run/paddock/link']) { // its link takes nobody else in, whoever it says that it is
    await refused(path, () => new Promise((yes, no) => {
      const s = net.connect(path);
      s.on('error', no);
      s.on('connect', () => yes('connected'));
    }));
  }
  return report;
};
