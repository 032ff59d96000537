// Says whose it is, who it was asked by, and which calls have begun in this container lately: that is how a call shows that
// ran twice, and a container that had two tenants.
const planted = 'TENANT', version = 0;
const here = (globalThis.chaos ??= { box: require('crypto').randomUUID(), count: 0, starts: [] });
module.exports = async (input, ctx) => {
  here.starts.push([++here.count, input.nonce]);
  if (here.starts.length > 50) here.starts.shift();
  const answer = { tenant: ctx.tenant, planted, version, nonce: input.nonce, box: here.box, starts: here.starts.slice() };
  if (input.ms) await new Promise((done) => setTimeout(done, input.ms));
  return answer;
};
