'use strict';
// Rehearses calls while the container is nobody's: code of our own goes the whole way, from the frames of a call to
// those of its answer, over a link that leads nowhere. The first real call then finds the agent compiled and its caches
// filled. Nothing else of it stays; the first thing that comes from the host ends it.

const P = require('./primordials.js');
const { TYPE, END, Reader, Writer } = require('./wire.js');
const { Outbox } = require('./outbox.js');

const ROUNDS = 3; // more gain less than they cost in memory

// What tenants write most: a function, one that waits, a rule, one that fails, one that logs. What answers HTTP requests
// is left out: it takes as much memory again.
const PARTS = [
  'module.exports = ({ user }) => ({ hello: user.email, ok: true });',
  'module.exports = async (input, ctx) => { await null; return { id: ctx.callId, ...input }; };',
  'function (user, context, callback) { user.seen = true; callback(null, user, context); }',
  'module.exports = () => { throw new Error("as planned"); };',
  'exports.default = (input) => { console.log("so far", input); return input; };',
];
const INPUT = '{"user":{"email":"somebody@example.com","roles":["a","b"],"age":42},"context":{"request":{}}}';

// stage returns a function that plays a part once. link is a Link that was never connected.
function stage(link) {
  let batch = null;
  const host = new Writer((bytes) => {
    batch = bytes;
    return true;
  });
  const reader = new Reader(
    (type, flags, stream, b, start, end) => link.frame(type, flags, stream, b, start, end),
    () => {},
  );
  link.epoch++;
  link.writer = new Writer(() => true);
  link.outbox = new Outbox(link.writer, () => 0);
  link.lines.window = 1 << 20;
  let stream = 1;
  return (no) => {
    const hash = `part ${no}`;
    const head = `{"id":"0123456789abcdef0123456789abcdef","code":"${hash}","ms":10000,"tenant":"nobody"}`;
    host.text(TYPE.LOAD, END, stream++, `{"hash":"${hash}","kind":"auto","name":"part.js"}`, PARTS[no]);
    host.text(TYPE.INVOKE, END, stream++, head, INPUT);
    host.flush();
    link.read(reader, batch, batch.length);
  };
}

// rehearse plays all parts some times over, one in each turn of the event loop, until over() says that the host has sent
// something to do.
function rehearse(link, over) {
  const play = stage(link);
  let n = 0;
  const next = () => {
    if (over() || n === ROUNDS * PARTS.length) return;
    play(n++ % PARTS.length);
    P.setImmediate(next);
  };
  P.setImmediate(next);
}

module.exports = { rehearse };
