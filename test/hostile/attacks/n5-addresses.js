// Asks the proxy for addresses that it must not reach, in every way there is to write them. The tenant may reach all public hosts.
module.exports = async (input) => {
  const tries = [];
  for (const host of input.hosts) for (const port of input.ports) tries.push(`CONNECT ${host}:${port} HTTP/1.1\r\nHost: ${host}:${port}\r\n\r\n`);
  await refusedByProxy(tries);
  return report;
};
