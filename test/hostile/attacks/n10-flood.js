// Opens as many connections to the proxy as it can and keeps them, saying nothing or next to nothing.
const net = require('net');
module.exports = async () => {
  let refusals = 0, open = 0;
  for (let i = 0; i < 220; i++) {
    const s = net.connect('/run/paddock/egress');
    s.on('error', () => refusals++);
    s.on('connect', () => { open++; s.write('CONNECT example.com:443 HTT'); });
    s.on('data', () => refusals++);
    s.on('close', () => open--);
  }
  for (let i = 0; i < 80 && (open > 64 || refusals === 0); i++) await sleep(100);
  must('some were refused', refusals > 0, refusals);
  must('no more than the limit are left', open <= 64, open);
  return report;
};
