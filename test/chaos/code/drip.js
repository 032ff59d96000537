// A long answer: a line every quarter of a second.
const planted = 'TENANT';
const here = (globalThis.chaos ??= { box: require('crypto').randomUUID(), count: 0, starts: [] });
module.exports = (ctx, req, res) => {
  const [nonce, ms] = req.url.split('/').pop().split('-').map(Number);
  here.starts.push([++here.count, nonce]);
  if (here.starts.length > 50) here.starts.shift();
  res.writeHead(200, { 'content-type': 'text/plain' });
  const end = Date.now() + ms;
  const tick = () => {
    const last = Date.now() >= end;
    res.write(JSON.stringify({ tenant: ctx.tenant, planted, nonce, box: here.box, last, starts: [] }) + '\n');
    if (last) res.end();
    else setTimeout(tick, 250);
  };
  tick();
};
