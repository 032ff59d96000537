// Keeps a tunnel open in a process of its own, and answers. The tunnel has to end with the sandbox.
const net = require('net');
module.exports = async (input) => {
  const s = net.connect('/run/paddock/egress');
  s.on('error', () => {});
  const answer = await new Promise((yes) => {
    s.once('data', (d) => yes(d.toString('latin1')));
    s.write(`CONNECT 127.0.0.1:${input.allowed} HTTP/1.1\r\nHost: x\r\n\r\n`);
  });
  s.write('GET /hold HTTP/1.1\r\nHost: x\r\n\r\n');
  await sleep(100);
  must('the tunnel was made', /^HTTP\/1\.\d 200/.test(answer), answer.split('\r\n')[0]);
  return report;
};
