'use strict';
// The agent of the node runtime: the first process of a container. It connects to the host's link and runs the calls
// that come.
//
//   node --experimental-vm-modules agent.js [--link PATH] [--egress PATH]
//
// Everything that it needs of the language is taken (primordials.js) before any tenant code can run. Nothing in here is
// a boundary: the container is.

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
const { rehearse } = require('./rehearse.js');

const context = P.newContextStore();
const current = () => context.getStore();

const link = new Link({
  path: options.link,
  agent: fingerprint(),
  run,
  context,
  giveUp: () => guard.reallyExit(1),
});
const nowhere = new Link({ path: '', agent: '', run, context, giveUp: () => {} });

const linesOf = (call) => (call === undefined ? link : call.link).lines;
logs.install((call, level, text) => linesOf(call).send(call, level, text), current);
guard.install(current, (call, error) => linesOf(call).report(call, error));
globals.install(current);
modules.onWarning((text) => {
  const by = current();
  const call = by?.owner;
  linesOf(by).send(by, 'warn', text);
  if (call !== undefined && !call.ended && (call.warnings?.length ?? 0) < 16) P.arrayPush((call.warnings ??= []), text);
});
process.argv.length = 1; // where the sockets are is nobody's business

link.connect();
rehearse(nowhere, () => link.busy());

// fingerprint tells agents apart: FNV-1a over the words of these files, and their size. At start the loop is
// interpreted, and still several times as fast as loading node:crypto.
function fingerprint() {
  const fs = require('node:fs');
  const names = fs
    .readdirSync(__dirname)
    .filter((name) => name.endsWith('.js'))
    .sort();
  const files = names.map((name) => fs.readFileSync(`${__dirname}/${name}`));
  const size = files.reduce((n, file) => n + file.length, 0);
  const words = new Int32Array((size >> 2) + 1);
  let at = 0;
  for (const file of files) {
    new Uint8Array(words.buffer).set(file, at);
    at += file.length;
  }
  let hash = 0x811c9dc5;
  for (let i = 0; i < words.length; i++) hash = Math.imul(hash ^ words[i], 0x01000193);
  return [size, hash].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
}
