'use strict';
// Writes frames.json and breaches.json, the golden frames of the link protocol that the Go and the JavaScript tests
// share. Run it by hand (node generate.js) after a change of the protocol, and read the difference: these files are the
// contract.

const fs = require('node:fs');
const path = require('node:path');

const TYPES = ['', 'HELLO', 'WELCOME', 'LOAD', 'LOADED', 'LOAD_FAILED', 'NOT_LOADED', 'INVOKE', 'DATA', 'WINDOW', 'HEAD', 'STEP',
  'RESULT', 'SETTLED', 'LOG', 'CANCEL', 'PING', 'PONG'];
const END = 1;
const SETTLED = 2;
const HASH = '2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae';
const CALL = '0123456789abcdef0123456789abcdef';

// wire makes a frame's bytes. head: undefined = the type has none, null = headLength 0, else the text of the head.
function wire(type, flags, stream, head, body = Buffer.alloc(0)) {
  const parts = [];
  if (head !== undefined) {
    const text = Buffer.from(head ?? '');
    const n = Buffer.alloc(4);
    n.writeUInt32BE(text.length);
    parts.push(n, text);
  }
  parts.push(Buffer.from(body));
  const payload = Buffer.concat(parts);
  const start = Buffer.alloc(10);
  start.writeUInt32BE(6 + payload.length, 0);
  start[4] = type;
  start[5] = flags;
  start.writeUInt32BE(stream, 6);
  return Buffer.concat([start, payload]);
}

const u32 = (n) => { const b = Buffer.alloc(4); b.writeUInt32BE(n); return b; };

const frames = [];
function frame(name, from, type, flags, stream, head, body = '') {
  const no = TYPES.indexOf(type);
  const text = head === undefined ? undefined : head === null ? null : JSON.stringify(head);
  body = Buffer.from(body);
  frames.push({
    name, from, hex: wire(no, flags, stream, text, body).toString('hex'), type: no, flags, stream,
    head: head === undefined ? null : head ?? {}, body: body.toString('hex'),
  });
}

frame('hello', 'agent', 'HELLO', 0, 0, { protocol: 1, runtime: 'node', version: 'v24.21.0', agent: '5f1d', reconnects: 0 });
frame('hello again', 'agent', 'HELLO', 0, 0, { protocol: 1, runtime: 'node', version: 'v24.21.0', agent: '5f1d', reconnects: 3 });
frame('welcome', 'host', 'WELCOME', 0, 0, {
  protocol: 1, streamWindow: 262144, logWindow: 262144, maxInput: 6291456, maxOutput: 6291456, maxLog: 65536, cacheEntries: 64,
  cacheBytes: 33554432,
});
frame('load', 'host', 'LOAD', END, 1, { hash: HASH, kind: 'auto', name: 'rule.js' }, 'function (a) { return a }');
frame('load, least head', 'host', 'LOAD', END, 2, { hash: HASH }, 'module.exports = (a) => a');
frame('load, first part', 'host', 'LOAD', 0, 3, { hash: HASH, kind: 'rule', name: 'long.js' }, 'function (user, context, ');
frame('load, last part', 'host', 'DATA', END, 3, undefined, 'callback) { callback() }');
frame('loaded', 'agent', 'LOADED', 0, 1, { hash: HASH });
frame('load failed', 'agent', 'LOAD_FAILED', 0, 2, {
  hash: HASH,
  error: { name: 'SyntaxError', message: "Unexpected token '}'", line: 2, column: 7, excerpt: '  foo(}\n      ^' },
});
frame('not loaded', 'agent', 'NOT_LOADED', 0, 4, { hash: HASH });
frame('invoke, least head', 'host', 'INVOKE', END, 5, { id: CALL, code: HASH, ms: 10000 }, '{"user":{"email":"a@b.c"}}');
frame('invoke, whole head', 'host', 'INVOKE', END, 6, {
  id: CALL, code: HASH, ms: 20000, kind: 'rule', via: 'value', secrets: { KEY: 'sésame', EMPTY: '' }, rev: '17',
  config: { domain: 'acme.example' }, meta: { trigger: 'login' }, name: 'check', tenant: 'acme', maxOutput: 1024, maxLog: 512,
}, '{"user":{},"context":{}}');
frame('invoke, http', 'host', 'INVOKE', END, 7, {
  id: CALL, code: HASH, ms: 5000, via: 'http',
  http: { method: 'PUT', url: '/a/b?x=1&x=2', headers: [['Content-Type', 'text/plain'], ['X-Twice', '1'], ['X-Twice', '2']] },
}, 'raw \u00ff body');
frame('invoke, empty body', 'host', 'INVOKE', END, 8, { id: CALL, code: HASH, ms: 1 });
frame('invoke, body to come', 'host', 'INVOKE', 0, 9, { id: CALL, code: HASH, ms: 10000 }, '"' + 'a'.repeat(40));
frame('data from the host', 'host', 'DATA', 0, 9, undefined, 'a'.repeat(20));
frame('last data from the host', 'host', 'DATA', END, 9, undefined, 'b"');
frame('empty last data from the host', 'host', 'DATA', END, 10, undefined);
frame('window from the host', 'host', 'WINDOW', 0, 9, undefined, u32(65536));
frame('window for logs', 'host', 'WINDOW', 0, 0, undefined, u32(1));
frame('window from the agent', 'agent', 'WINDOW', 0, 9, undefined, u32(4294967295));
frame('head', 'agent', 'HEAD', 0, 7, {
  status: 200, headers: [['content-type', 'text/html; charset=utf-8'], ['set-cookie', 'a=1'], ['set-cookie', 'b=2']],
});
frame('head, no headers', 'agent', 'HEAD', 0, 8, { status: 404, headers: [] });
frame('data from the agent', 'agent', 'DATA', 0, 7, undefined, Buffer.from([0, 1, 2, 255, 254, 253]));
frame('last data from the agent', 'agent', 'DATA', END, 7, undefined, 'end');
frame('invoke, pipeline', 'host', 'INVOKE', END, 15, {
  id: CALL, code: HASH, ms: 20000, kind: 'rule', tenant: 'acme', pipeline: 'login',
  steps: [
    { name: 'first', code: HASH, set: 0 },
    { name: 'second', code: HASH, ms: 500, policy: 'skip', set: 1 },
    { name: 'third', code: HASH, policy: 'last_good', fallback: HASH, rest: true },
  ],
  sets: [{ rev: '17', of: [0, 1] }, { rev: '18', of: [0, 2] }],
  values: [['ALL', 'sésame'], ['KEY', 'one'], ['KEY', 'two']],
}, '{"user":{},"context":{}}');
frame('invoke, pipeline that goes on', 'host', 'INVOKE', END, 16, {
  id: CALL, code: HASH, ms: 15000, kind: 'rule', pipeline: 'login', from: 1, resumed: true,
  steps: [{ name: 'first', code: HASH }, { name: 'second', code: HASH, policy: 'skip' }],
}, '{"user":{},"context":{}}');
frame('not loaded, several', 'agent', 'NOT_LOADED', 0, 15, { hash: HASH, missing: [HASH, HASH] });
frame('step', 'agent', 'STEP', END, 15, { index: 0, outcome: 'ok', us: 120 }, '{"user":{},"context":{}}');
frame('step, state to come', 'agent', 'STEP', 0, 15, { index: 0, outcome: 'ok', us: 9 }, '{"user":{},');
frame('step, last of the state', 'agent', 'DATA', END, 15, undefined, '"context":{}}');
frame('step that was skipped', 'agent', 'STEP', END, 15, { index: 1, outcome: 'skipped', us: 500100, why: 'timeout', error: { name: 'TimeoutError', message: 'no' } });
frame('step that was replaced', 'agent', 'STEP', END, 15, { index: 2, outcome: 'last_good', us: 77, error: { name: 'TypeError', message: 'no' } }, '{"user":{},"context":{}}');
frame('step that refused', 'agent', 'STEP', END, 15, { index: 1, outcome: 'refused', error: { name: 'AccessDenied', message: 'no', denied: true } });
frame('step that runs for long', 'agent', 'STEP', END, 15, { index: 3, outcome: 'running', times: [12, 7, 1500] });
frame('result of a pipeline', 'agent', 'RESULT', END | SETTLED, 15, { us: [12, 7], cpu: 80 }, '{"user":{},"context":{}}');
frame('result, refused', 'agent', 'RESULT', END, 15, {
  outcome: 'refused', step: 1, us: [12, 7], error: { name: 'UnauthorizedError', message: 'not today', denied: true },
});
frame('result, step timeout', 'agent', 'RESULT', END, 15, { outcome: 'timeout', step: 0, us: [500100], error: { name: 'TimeoutError', message: 'no' } });
frame('log of a step', 'agent', 'LOG', 0, 15, { level: 'info', t: 1760000000000, step: 1 }, 'hello');
frame('result, empty head', 'agent', 'RESULT', END | SETTLED, 5, null, '{"ok":true}');
frame('result with cpu', 'agent', 'RESULT', END, 5, { outcome: 'ok', cpu: 1234, warnings: ['uuid@8.0.0 is not here'] }, 'null');
frame('result, body to come', 'agent', 'RESULT', 0, 5, null, '"' + 'x'.repeat(30));
frame('result, settled, body to come', 'agent', 'RESULT', SETTLED, 5, null, '[1,');
frame('result after head', 'agent', 'RESULT', END, 7, { outcome: 'ok', cpu: 5 });
frame('result, error', 'agent', 'RESULT', END | SETTLED, 6, {
  outcome: 'error',
  error: {
    name: 'TypeError', message: 'x is not a function \u2014 really', stack: 'TypeError: x is not a function\n    at rule.js:1:2',
    code: 'ERR_X', statusCode: 418,
  },
});
frame('result, denied', 'agent', 'RESULT', END, 6, {
  outcome: 'error', error: { name: 'UnauthorizedError', message: 'not today', denied: true },
});
frame('result, load error', 'agent', 'RESULT', END | SETTLED, 11, {
  outcome: 'load_error', error: { name: 'SyntaxError', message: 'Unexpected end of input', line: 1, column: 3, excerpt: 'f((\n  ^' },
});
frame('result, too large', 'agent', 'RESULT', END | SETTLED, 12, { outcome: 'output_too_large' });
frame('result, cancelled', 'agent', 'RESULT', END, 13, { outcome: 'cancelled' });
frame('result, invalid', 'agent', 'RESULT', END | SETTLED, 14, { outcome: 'invalid', error: { name: 'SyntaxError', message: 'no JSON' } });
frame('settled', 'agent', 'SETTLED', 0, 13, undefined);
frame('log', 'agent', 'LOG', 0, 5, { level: 'info', t: 1760000000000 }, 'hello \u00e9\n\u0000"');
frame('log after drops', 'agent', 'LOG', 0, 5, { level: 'error', t: 1760000000001, dropped: 4096 }, 'again');
frame('log outside any call', 'agent', 'LOG', 0, 0, { level: 'warn', t: 1760000000002 }, '');
frame('cancel, deadline', 'host', 'CANCEL', 0, 13, { reason: 'deadline' });
frame('cancel, gone', 'host', 'CANCEL', 0, 4294967295, { reason: 'gone' });
frame('ping', 'host', 'PING', 0, 0, undefined, Buffer.from('0102030405060708', 'hex'));
frame('pong', 'agent', 'PONG', 0, 0, undefined, Buffer.from('0102030405060708', 'hex'));

const breaches = [];
function breach(name, why, state, ...parts) {
  breaches.push({ name, hex: Buffer.concat(parts).toString('hex'), why, state });
}
const start = (length, type, flags, stream) => Buffer.concat([u32(length), Buffer.from([type, flags]), u32(stream)]);
const T = (name) => TYPES.indexOf(name);
const hello = JSON.stringify(frames[0].head);
const helloFrame = wire(T('HELLO'), 0, 0, hello);

// state hello: nothing has been read yet.
breach('data before hello', 'the first frame is no HELLO', 'hello', wire(T('LOG'), 0, 0, '{"level":"info","t":1}', 'x'));
breach('hello with a list as head', 'the head is no object', 'hello', wire(T('HELLO'), 0, 0, '[1]'));
breach('hello with a protocol that is text', 'a field of another type', 'hello', wire(T('HELLO'), 0, 0, '{"protocol":"1","runtime":"node"}'));
breach('hello on a stream', 'HELLO belongs to stream 0', 'hello', wire(T('HELLO'), 0, 1, hello));

// state open: HELLO was read, WELCOME said streamWindow = logWindow = 262144, stream 1 is open by an INVOKE, nothing
// else was sent.
breach('length 0', 'shorter than the fixed part', 'open', u32(0), Buffer.alloc(6));
breach('length 5', 'shorter than the fixed part', 'open', u32(5), Buffer.alloc(5));
breach('length 2^32-1', 'longer than any frame', 'open', start(0xffffffff, T('DATA'), 0, 1));
breach('length 2^31', 'longer than any frame', 'open', start(0x80000000, T('DATA'), 0, 1));
breach('length one past the bound', 'longer than any frame of the agent', 'open', start(6 + 4 + 65536 + 65536 + 1, T('RESULT'), 0, 1));
breach('data over 64 KiB', 'a body over 64 KiB', 'open', wire(T('DATA'), 0, 1, undefined, Buffer.alloc(65537)));
breach('result body over 64 KiB', 'a body over 64 KiB', 'open', wire(T('RESULT'), END, 1, null, Buffer.alloc(65537, 0x20)));
breach('head over 64 KiB', 'a head over 64 KiB', 'open', wire(T('RESULT'), END, 1, JSON.stringify({ outcome: 'x'.repeat(65536) })));
breach('head longer than the frame', 'headLength points past the end', 'open', start(6 + 4, T('RESULT'), END, 1), u32(1));
breach('head length 2^32-1', 'headLength points past the end', 'open', start(6 + 4, T('RESULT'), END, 1), u32(0xffffffff));
breach('no room for the head length', 'a type with a head, 3 bytes of payload', 'open', start(6 + 3, T('RESULT'), END, 1), Buffer.alloc(3));
breach('type 0', 'unknown type', 'open', wire(0, 0, 1, undefined));
breach('type 18', 'unknown type', 'open', wire(18, 0, 1, undefined));
breach('type 255', 'unknown type', 'open', wire(255, 0, 1, undefined));
for (const name of ['WELCOME', 'LOAD', 'INVOKE', 'CANCEL']) {
  breach(`${name.toLowerCase()} from the agent`, 'only the host sends this', 'open', wire(T(name), 0, 1, '{}'));
}
breach('ping from the agent', 'only the host sends this', 'open', wire(T('PING'), 0, 0, undefined, Buffer.alloc(8)));
breach('flag 0x04', 'unknown flag', 'open', wire(T('DATA'), 4, 1, undefined, 'x'));
breach('flag 0x80', 'unknown flag', 'open', wire(T('RESULT'), 0x81, 1, null, 'null'));
breach('settled flag on data', 'SETTLED is a flag of RESULT', 'open', wire(T('DATA'), SETTLED, 1, undefined, 'x'));
breach('result head no json', 'the head is no JSON', 'open', wire(T('RESULT'), END, 1, '{outcome:1}', 'null'));
breach('result head cut short', 'the head is no JSON', 'open', wire(T('RESULT'), END, 1, '{"outcome":"ok"', 'null'));
breach('result head null', 'the head is no object', 'open', wire(T('RESULT'), END, 1, 'null', 'null'));
breach('result head a list', 'the head is no object', 'open', wire(T('RESULT'), END, 1, '[]', 'null'));
breach('result outcome a number', 'a field of another type', 'open', wire(T('RESULT'), END, 1, '{"outcome":5}', 'null'));
breach('result outcome unknown', 'no such outcome', 'open', wire(T('RESULT'), END, 1, '{"outcome":"fine"}', 'null'));
breach('result error a text', 'a field of another type', 'open', wire(T('RESULT'), END, 1, '{"outcome":"error","error":"x"}'));
breach('status 99', 'a status outside 200 to 599', 'open', wire(T('HEAD'), 0, 1, '{"status":99,"headers":[]}'));
breach('status 101', 'a status outside 200 to 599', 'open', wire(T('HEAD'), 0, 1, '{"status":101,"headers":[]}'));
breach('status 1000', 'a status outside 200 to 599', 'open', wire(T('HEAD'), 0, 1, '{"status":1000,"headers":[]}'));
breach('status a text', 'a field of another type', 'open', wire(T('HEAD'), 0, 1, '{"status":"200","headers":[]}'));
breach('headers an object', 'a field of another type', 'open', wire(T('HEAD'), 0, 1, '{"status":200,"headers":{"a":"b"}}'));
breach('log level unknown', 'no such level', 'open', wire(T('LOG'), 0, 1, '{"level":"fatal","t":1}', 'x'));
breach('window of 3 bytes', 'WINDOW carries a u32', 'open', wire(T('WINDOW'), 0, 1, undefined, Buffer.alloc(3)));
breach('pong of 7 bytes', 'PONG carries 8 bytes', 'open', wire(T('PONG'), 0, 0, undefined, Buffer.alloc(7)));
breach('settled with a payload', 'SETTLED is empty', 'open', wire(T('RESULT'), END, 1, null, 'null'), wire(T('SETTLED'), 0, 1, undefined, 'x'));
breach('pong without ping', 'no PING was sent', 'open', wire(T('PONG'), 0, 0, undefined, Buffer.alloc(8)));
breach('loaded without load', 'no LOAD was sent', 'open', wire(T('LOADED'), 0, 2, JSON.stringify({ hash: HASH })));
breach('load failed without load', 'no LOAD was sent', 'open', wire(T('LOAD_FAILED'), 0, 2, JSON.stringify({ hash: HASH, error: {} })));
breach('result on a stream never opened', 'unknown stream', 'open', wire(T('RESULT'), END, 9999, null, 'null'));
breach('log on a stream never opened', 'unknown stream', 'open', wire(T('LOG'), 0, 9999, '{"level":"info","t":1}', 'x'));
breach('result on stream 0', 'stream 0 has no calls', 'open', wire(T('RESULT'), END, 0, null, 'null'));
breach('window on a stream never opened', 'unknown stream', 'open', wire(T('WINDOW'), 0, 9999, undefined, u32(1)));
breach('second hello', 'HELLO comes once', 'open', helloFrame);
breach('second head', 'HEAD comes once', 'open', wire(T('HEAD'), 0, 1, '{"status":200,"headers":[]}'), wire(T('HEAD'), 0, 1, '{"status":200,"headers":[]}'));
breach('second result', 'RESULT comes once', 'open', wire(T('RESULT'), END, 1, null, '1'), wire(T('RESULT'), END, 1, null, '2'));
breach('second settled', 'SETTLED comes once', 'open', wire(T('RESULT'), END | SETTLED, 1, null, '1'), wire(T('SETTLED'), 0, 1, undefined));
breach('settled before result', 'SETTLED follows RESULT', 'open', wire(T('SETTLED'), 0, 1, undefined));
breach('data before head', 'DATA follows HEAD or a RESULT without END', 'open', wire(T('DATA'), 0, 1, undefined, 'x'));
breach('data after end', 'this direction is closed', 'open', wire(T('HEAD'), 0, 1, '{"status":200,"headers":[]}'),
  wire(T('DATA'), END, 1, undefined, 'x'), wire(T('DATA'), 0, 1, undefined, 'y'));
breach('not loaded after head', 'the call has started', 'open', wire(T('HEAD'), 0, 1, '{"status":200,"headers":[]}'),
  wire(T('NOT_LOADED'), 0, 1, JSON.stringify({ hash: HASH })));
breach('stream credit exceeded', '5 x 64 KiB against a window of 256 KiB', 'open', wire(T('HEAD'), 0, 1, '{"status":200,"headers":[]}'),
  ...Array.from({ length: 5 }, () => wire(T('DATA'), 0, 1, undefined, Buffer.alloc(65536))));
breach('log credit exceeded', '5 x 64 KiB against a window of 256 KiB', 'open',
  ...Array.from({ length: 5 }, () => wire(T('LOG'), 0, 1, '{"level":"info","t":1}', Buffer.alloc(65536, 0x61))));

// state pipeline: as open, but stream 1 is a pipeline of three rules: first (policy fail), second (skip), third (fail), so that
// STEP tells of the first two.
const STEP = (head, body = '{}', flags = END) => wire(T('STEP'), flags, 1, JSON.stringify(head), body);
const first = STEP({ index: 0, outcome: 'ok', us: 5 });
const failed = { name: 'Error', message: 'no' };
const ended = (head, body) => wire(T('RESULT'), END, 1, JSON.stringify(head), body);
breach('step of no pipeline', 'stream 1 is none', 'open', first);
breach('refused of no pipeline', 'an outcome of pipelines', 'open', ended({ outcome: 'refused', error: failed }));
breach('step head a list', 'the head is no object', 'pipeline', wire(T('STEP'), END, 1, '[]'));
breach('step outcome unknown', 'no such outcome', 'pipeline', STEP({ index: 0, outcome: 'fine' }));
breach('step with the flag of a result', 'SETTLED is a flag of RESULT', 'pipeline', STEP({ index: 0, outcome: 'ok' }, '{}', END | SETTLED));
breach('second step first', 'steps come in their order', 'pipeline', STEP({ index: 1, outcome: 'ok' }));
breach('same step twice', 'steps come once', 'pipeline', first, first);
breach('step -1', 'there is none', 'pipeline', STEP({ index: -1, outcome: 'ok' }));
breach('third step told', 'nobody needs it', 'pipeline', first, STEP({ index: 1, outcome: 'ok' }), STEP({ index: 2, outcome: 'ok' }));
breach('skipped without the policy', 'a step that may not be skipped', 'pipeline', STEP({ index: 0, outcome: 'skipped', error: failed }, ''));
breach('last good without one', 'there is no fallback', 'pipeline', first, STEP({ index: 1, outcome: 'last_good', error: failed }));
breach('skipped for no reason', 'no such reason', 'pipeline', first, STEP({ index: 1, outcome: 'skipped', why: 'luck' }, ''));
breach('step after a refusal', 'it has refused', 'pipeline', STEP({ index: 0, outcome: 'refused', error: failed }, ''), first);
breach('refusal of a step to come', 'it was not begun', 'pipeline', STEP({ index: 1, outcome: 'refused', error: failed }, ''));
breach('refusal with a state', 'it has none', 'pipeline', STEP({ index: 0, outcome: 'refused', error: failed }));
breach('running of a step that is told', 'the host knows', 'pipeline', STEP({ index: 0, outcome: 'running', times: [] }, ''));
breach('running without the times before', 'two are missing', 'pipeline', STEP({ index: 2, outcome: 'running', times: [] }, ''));
breach('step within a state', 'the state has not ended', 'pipeline', STEP({ index: 0, outcome: 'ok' }, '{', 0), STEP({ index: 1, outcome: 'ok' }));
breach('data after a state', 'nothing was open', 'pipeline', first, wire(T('DATA'), END, 1, undefined, 'x'));
breach('result ok within a state', 'the state has not ended', 'pipeline', STEP({ index: 0, outcome: 'ok' }, '{', 0), ended({ us: [1, 2] }, '{}'));
breach('result ok after a refusal', 'a refusal stands', 'pipeline', STEP({ index: 0, outcome: 'refused', error: failed }, ''), ended({ us: [1, 2, 3] }, '{}'));
breach('result ok of two steps', 'there are three', 'pipeline', first, ended({ us: [1] }, '{}'));
breach('result ok of four steps', 'there are three', 'pipeline', first, ended({ us: [1, 2, 3] }, '{}'));
breach('result error of no step', 'nobody is blamed', 'pipeline', first, ended({ outcome: 'error', step: 0, us: [], error: failed }));
breach('result error of a step to come', 'it was not begun', 'pipeline', first, ended({ outcome: 'error', step: 2, us: [1], error: failed }));
breach('result error of a step that is over', 'only a refusal comes late', 'pipeline', first, ended({ outcome: 'error', step: 0, us: [1], error: failed }));
breach('head of a pipeline', 'its value is JSON', 'pipeline', wire(T('HEAD'), 0, 1, '{"status":200,"headers":[]}'));
breach('not loaded of other code', 'no step has it', 'pipeline', wire(T('NOT_LOADED'), 0, 1, JSON.stringify({ hash: HASH })));
breach('log of step x', 'a field of another type', 'pipeline', wire(T('LOG'), 0, 1, '{"level":"info","t":1,"step":"x"}', 'x'));

// Zeros and letters by the hundred thousand make a file nobody can open; runs of one byte are shortened to
// <byte>*<count>.
const squeeze = (hex) => hex.replace(/((?:00){64,}|(?:20){64,}|(?:61){64,}|(?:78){64,})/g, (run) => `{${run.slice(0, 2)}*${run.length / 2}}`);

const lines = (list) => '[\n' + list.map((x) => '  ' + JSON.stringify(x)).join(',\n') + '\n]\n';
fs.writeFileSync(path.join(__dirname, 'frames.json'), lines(frames));
fs.writeFileSync(path.join(__dirname, 'breaches.json'), lines(breaches.map((b) => ({ ...b, hex: squeeze(b.hex) }))));
