// Asks the proxy for ports that stay shut whatever a tenant may reach, for the proxy itself, and for the service behind it. The tenant
// may go anywhere, and has the service's own listeners in its list by address.
module.exports = async (input) => {
  const tries = [];
  for (const port of [22, 25, 2375, 2376, 2379, 2380, 6443, 10250]) tries.push(`CONNECT 93.184.216.34:${port} HTTP/1.1\r\nHost: x\r\n\r\n`);
  for (const host of ['127.0.0.1', 'localhost', '[::ffff:127.0.0.1]', '127.1', input.host]) {
    for (const port of [input.router, input.grpc]) tries.push(`CONNECT ${host}:${port} HTTP/1.1\r\nHost: x\r\n\r\n`);
  }
  for (const self of ['/run/paddock/egress', 'unix:/run/paddock/egress', '/run/paddock/link']) tries.push(`CONNECT ${self} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await refusedByProxy(tries);
  return report;
};
