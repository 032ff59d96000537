'use strict';
// The golden frames, which the host's tests read too, against the agent's reader and writer; and a real agent on the
// wire.

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { Reader, Writer, TYPE, START, get32 } = require('../wire.js');
const { withHost, encode, T, END } = require('./host.js');

const golden = JSON.parse(fs.readFileSync(path.join(__dirname, '..', '..', 'testdata', 'frames.json')));
const breaches = JSON.parse(fs.readFileSync(path.join(__dirname, '..', '..', 'testdata', 'breaches.json')));

const hasHead = (type) => ![TYPE.DATA, TYPE.WINDOW, TYPE.SETTLED, TYPE.PING, TYPE.PONG].includes(type);

// read cuts bytes into frames as the agent does, in chunks of the given size.
function read(bytes, size) {
  const frames = [];
  let broken = null;
  const reader = new Reader(
    (type, flags, stream, b, start, end) => {
      const frame = { type, flags, stream, head: null, body: '' };
      let body = start;
      if (hasHead(type)) {
        const n = get32(b, start);
        frame.head = n === 0 ? {} : JSON.parse(b.toString('utf8', start + 4, start + 4 + n));
        body += 4 + n;
      }
      frame.body = b.toString('hex', body, end);
      frames.push(frame);
    },
    (what) => {
      broken = what;
    },
  );
  const shared = Buffer.alloc(size);
  for (let at = 0; at < bytes.length; at += size) {
    const n = bytes.copy(shared, 0, at, at + size); // the same buffer again, as the socket does
    reader.feed(shared, n);
  }
  return { frames, broken };
}

test('every type is in the golden frames, both directions where both send it', () => {
  const seen = new Set(golden.map((g) => `${g.from} ${g.type}`));
  for (const [name, no] of Object.entries(TYPE)) {
    const from = ['DATA', 'WINDOW'].includes(name)
      ? ['agent', 'host']
      : [['WELCOME', 'LOAD', 'INVOKE', 'CANCEL', 'PING'].includes(name) ? 'host' : 'agent'];
    for (const side of from) assert.ok(seen.has(`${side} ${no}`), `${side} ${name}`);
  }
});

test('golden frames are read, whole, byte by byte and in odd pieces', () => {
  const bytes = Buffer.concat(golden.map((g) => Buffer.from(g.hex, 'hex')));
  const want = golden.map(({ type, flags, stream, head, body }) => ({ type, flags, stream, head, body }));
  for (const size of [bytes.length, 1, 7, 11, 64, 1000]) {
    const { frames, broken } = read(bytes, size);
    assert.equal(broken, null);
    assert.deepEqual(frames, want, `chunks of ${size}`);
  }
});

test('golden frames of the agent are written byte for byte', () => {
  for (const g of golden.filter((f) => f.from === 'agent')) {
    const written = [];
    const w = new Writer((b) => {
      written.push(Buffer.from(b));
      return true;
    });
    const body = Buffer.from(g.body, 'hex');
    const head = Buffer.from(g.hex, 'hex').toString(
      'utf8',
      START + 4,
      START + 4 + get32(Buffer.from(g.hex, 'hex'), START),
    );
    if (g.type === TYPE.WINDOW) w.window(g.stream, get32(body, 0));
    else if (!hasHead(g.type)) w.plain(g.type, g.flags, g.stream, body);
    else w.bytes(g.type, g.flags, g.stream, head, body);
    w.flush();
    assert.equal(Buffer.concat(written).toString('hex'), g.hex, g.name);
    if (!hasHead(g.type) || body.toString('utf8').includes('\ufffd')) continue;
    w.text(g.type, g.flags, g.stream, head, body.toString('utf8'));
    w.flush();
    assert.equal(written.at(-1).toString('hex'), g.hex, `${g.name} as text`);
  }
});

test('frames beyond the bounds are refused before they are waited for', () => {
  for (const name of ['length 0', 'length 5', 'length 2^32-1', 'length 2^31']) {
    const hex = breaches.find((b) => b.name === name).hex;
    const { frames, broken } = read(Buffer.from(hex, 'hex').subarray(0, 10), 10);
    assert.deepEqual(frames, []);
    assert.match(broken, /a frame of/);
  }
});

test('breaches have unique names and reasons', () => {
  assert.equal(new Set(breaches.map((b) => b.name)).size, breaches.length);
  for (const b of breaches) assert.ok(b.why && b.hex && ['hello', 'open', 'pipeline'].includes(b.state), b.name);
});

test('writer keeps what the socket has not taken', () => {
  const held = [];
  const w = new Writer((b) => {
    held.push(b);
    return false;
  });
  for (let i = 0; i < 3; i++) {
    w.text(TYPE.LOG, 0, i, '', 'x'.repeat(i + 1));
    w.flush();
  }
  assert.deepEqual(
    held.map((b) => b.toString('utf8', 14)),
    ['x', 'xx', 'xxx'],
  );
});

test(
  'hello says who the agent is',
  withHost(async (host) => {
    assert.deepEqual(Object.keys(host.hello), ['protocol', 'runtime', 'version', 'agent', 'reconnects']);
    assert.equal(host.hello.protocol, 1);
    assert.equal(host.hello.runtime, 'node');
    assert.equal(host.hello.version, process.version);
    assert.match(host.hello.agent, /^[0-9a-f]{16}$/);
    assert.equal(host.hello.reconnects, 0);
  }),
);

test(
  'ping is answered with its bytes, unknown types of a later protocol are passed over',
  withHost(async (host) => {
    host.send(encode(99, 0, 0, undefined, 'later'));
    await host.ping('00ff00ff01020304');
    assert.deepEqual(host.pongs, ['00ff00ff01020304']);
  }),
);

test(
  'frames that come byte by byte are the same frames',
  withHost(async (host) => {
    const source = '(input) => input';
    const hash = 'b'.repeat(64);
    const bytes = Buffer.concat([encode(T.LOAD, END, 900, { hash }, source)]);
    const loaded = new Promise((resolve) => host.loads.set(900, resolve));
    for (const byte of bytes) host.socket.write(Buffer.from([byte]));
    assert.equal((await loaded).name, 'LOADED');
  }),
);

test(
  'the answers of calls that came together leave together',
  withHost(async (host) => {
    const hash = 'c'.repeat(64);
    await host.load('async (input) => input', { hash });
    const before = host.chunks;
    const frames = [];
    host.send = (...f) => frames.push(...f);
    const calls = Array.from({ length: 32 }, (_, i) => host.open(hash, i));
    host.socket.write(Buffer.concat(frames));
    const answers = await Promise.all(calls.map((c) => c.answered));
    assert.deepEqual(
      answers.map((a) => a.value),
      calls.map((_, i) => i),
    );
    assert.ok(host.chunks - before <= 4, `${host.chunks - before} reads for 32 answers`);
  }),
);
