'use strict';
// The agent of the node runtime: the first process of a container. It connects to the host's link and runs the calls that come.
//
//   node --experimental-vm-modules agent.js [--link PATH] [--egress PATH]
//
// Everything that it needs of the language is taken (primordials.js) before any tenant code can run. Nothing in here is a boundary:
// the container is.

const options = { link: '/run/paddock/link', egress: '' };
for (let i = 2; i + 1 < process.argv.length; i += 2) {
  const name = process.argv[i].slice(2);
  if (process.argv[i].startsWith('--') && name in options) options[name] = process.argv[i + 1];
}
if (options.egress !== '') process.env.PADDOCK_EGRESS = options.egress;

require('./egress.js'); // loaded already where NODE_OPTIONS names it
const P = require('./primordials.js');
const { Link } = require('./link.js');
const { run } = require('./run.js');
const globals = require('./globals.js');
const guard = require('./guard.js');
const logs = require('./logs.js');
const modules = require('./modules.js');

const context = P.newContextStore();
const current = () => context.getStore();

const link = new Link({
  path: options.link,
  agent: fingerprint(),
  run,
  context,
  giveUp: () => guard.reallyExit(1),
});

logs.install((call, level, text) => link.log(call, level, text), current);
guard.install(current, (call, error) => link.report(call, error));
globals.install(current);
modules.onWarning((text) => {
  const call = current();
  link.log(call, 'warn', text);
  if (call !== undefined && !call.ended && (call.warnings?.length ?? 0) < 16) P.arrayPush(call.warnings ??= [], text);
});
process.argv.length = 1; // where the sockets are is nobody's business

link.connect();

// fingerprint tells agents apart: a hash over these files.
function fingerprint() {
  const fs = require('node:fs');
  const hash = require('node:crypto').createHash('sha256');
  for (const name of fs.readdirSync(__dirname).filter((n) => n.endsWith('.js')).sort()) {
    hash.update(name).update('\0').update(fs.readFileSync(`${__dirname}/${name}`));
  }
  return hash.digest('hex').slice(0, 16);
}
