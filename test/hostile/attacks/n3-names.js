// Asks for names: by the resolver of the C library and by DNS itself, in the agent's process and in a plain one.
module.exports = async () => {
  const dns = require('dns').promises;
  await refused('lookup', () => dns.lookup('example.com'));
  await refused('lookup all', () => dns.lookup('localhost.localdomain', { all: true }));
  for (const how of ['resolve4', 'resolve6', 'resolveTxt', 'resolveSrv', 'resolveAny', 'reverse']) await refused(how, () => dns[how](how === 'reverse' ? '127.0.0.1' : 'example.com'));
  const resolver = new (require('dns').promises.Resolver)({ timeout: 300, tries: 1 });
  for (const server of ['127.0.0.1', '8.8.8.8', '169.254.169.253', '[::1]:53']) {
    await refused(`ask ${server}`, () => { resolver.setServers([server]); return resolver.resolve4('example.com'); });
  }
  const servers = (() => { try { return fs.readFileSync('/etc/resolv.conf', 'utf8'); } catch { return ''; } })().split('\n').filter((l) => /^\s*nameserver/.test(l));
  must('no resolver of the host is told', servers.every((l) => /nameserver\s+192\.0\.2\.1\s*$/.test(l)), servers.join());
  const plain = nodeSync(`const dns = require('dns'); let left = 2; const done = (...a) => { console.log(JSON.stringify(a)); if (--left === 0) process.exit(); };
    dns.lookup('example.com', (e, a) => done('lookup', e ? e.code : a)); try { dns.resolve4('example.com', (e, a) => done('resolve4', e ? e.code : a)); } catch (e) { done('resolve4', e.code); }
    setTimeout(() => process.exit(), 3000)`);
  must('a plain process resolves nothing', !/\d+\.\d+\.\d+\.\d+/.test(plain.out) && plain.out.length > 0, plain.out + plain.err.slice(0, 200));
  return report;
};
