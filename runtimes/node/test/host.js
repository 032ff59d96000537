'use strict';
// A host for the tests: listens, starts the real agent as a process, speaks the link protocol with its own code (none
// of the agent's), and checks what the protocol says about order and credit while it goes.

const assert = require('node:assert');
const { spawn } = require('node:child_process');
const crypto = require('node:crypto');
const { EventEmitter, once } = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

const TYPES = [
  '',
  'HELLO',
  'WELCOME',
  'LOAD',
  'LOADED',
  'LOAD_FAILED',
  'NOT_LOADED',
  'INVOKE',
  'DATA',
  'WINDOW',
  'HEAD',
  'STEP',
  'RESULT',
  'SETTLED',
  'LOG',
  'CANCEL',
  'PING',
  'PONG',
];
const T = Object.fromEntries(TYPES.map((name, no) => [name, no]));
const PLAIN = new Set([T.DATA, T.WINDOW, T.SETTLED, T.PING, T.PONG]);
const END = 1;
const SETTLED = 2;
const MAX = 65536;

const sha = (text) => crypto.createHash('sha256').update(text).digest('hex');

// encode makes a frame; head undefined = the type has none.
function encode(type, flags, stream, head, body = Buffer.alloc(0)) {
  const parts = [Buffer.alloc(10)];
  if (head !== undefined) {
    const text = Buffer.from(head === null ? '' : JSON.stringify(head));
    const size = Buffer.alloc(4);
    size.writeUInt32BE(text.length);
    parts.push(size, text);
  }
  parts.push(Buffer.from(body));
  const frame = Buffer.concat(parts);
  frame.writeUInt32BE(frame.length - 4, 0);
  frame[4] = type;
  frame[5] = flags;
  frame.writeUInt32BE(stream, 6);
  return frame;
}

// decode returns {type, flags, stream, head, body, payload, size}, or null where bytes are missing.
function decode(b) {
  if (b.length < 10) return null;
  const length = b.readUInt32BE(0);
  assert.ok(length >= 6 && length <= 6 + 4 + 2 * MAX, `length ${length}`);
  if (b.length < 4 + length) return null;
  const frame = {
    type: b[4],
    flags: b[5],
    stream: b.readUInt32BE(6),
    head: null,
    size: 4 + length,
    payload: length - 6,
  };
  assert.ok(frame.type >= 1 && frame.type <= 17, `type ${frame.type}`);
  let body = b.subarray(10, 4 + length);
  if (!PLAIN.has(frame.type)) {
    const size = body.readUInt32BE(0);
    assert.ok(size <= MAX && size <= body.length - 4, `head of ${size}`);
    frame.head = size === 0 ? {} : JSON.parse(body.toString('utf8', 4, 4 + size));
    body = body.subarray(4 + size);
  }
  assert.ok(body.length <= MAX);
  frame.body = Buffer.from(body);
  return frame;
}

// Exchange is one INVOKE as the host sees it.
class Exchange {
  constructor(host, stream, window) {
    this.host = host;
    this.stream = stream;
    this.window = window;
    this.autoCredit = true;
    this.logs = [];
    this.head = null;
    this.data = [];
    this.steps = []; // heads of STEP, with the state
    this.collecting = null; // the step whose state still comes
    this.result = null; // head of RESULT
    this.granted = 0;
    this.windows = 0;
    this.resultCount = 0;
    this.settledCount = 0;
    this.answered = new Promise((resolve) => {
      this.onAnswer = resolve;
    });
    this.settled = new Promise((resolve) => {
      this.onSettled = resolve;
    });
    this.started = new Promise((resolve) => {
      this.onHead = resolve;
    });
  }

  spend(frame) {
    this.window -= frame.payload;
    assert.ok(this.window >= 0, 'the agent exceeded its credit');
    if (this.autoCredit && this.window < 131072) this.credit(131072);
  }

  credit(bytes) {
    this.window += bytes;
    const b = Buffer.alloc(4);
    b.writeUInt32BE(bytes);
    this.host.send(encode(T.WINDOW, 0, this.stream, undefined, b));
  }

  frame(f) {
    const name = TYPES[f.type];
    if (name === 'LOG') return this.logs.push({ ...f.head, text: f.body.toString() });
    if (name === 'WINDOW') {
      this.windows++;
      this.granted += f.body.readUInt32BE(0);
      return this.host.emit('window', this);
    }
    if (name === 'SETTLED') {
      assert.ok(this.result !== null, 'SETTLED before RESULT');
      this.settledCount++;
      assert.equal(this.settledCount, 1, 'SETTLED twice');
      return this.onSettled();
    }
    this.spend(f);
    if (name === 'NOT_LOADED') {
      this.result = { outcome: 'not_loaded', ...f.head };
      return this.onAnswer(this);
    }
    if (name === 'HEAD') {
      assert.equal(this.head, null, 'HEAD twice');
      this.head = f.head;
      return this.onHead(this);
    }
    if (name === 'STEP') {
      assert.equal(this.result, null, 'STEP after RESULT');
      assert.equal(this.collecting, null, 'STEP within the state of another');
      this.steps.push({ ...f.head, state: f.body.toString('latin1') });
      if (!(f.flags & END)) this.collecting = this.steps.at(-1);
      return this.host.emit('step', this);
    }
    if (name === 'DATA' && this.collecting !== null) {
      this.collecting.state += f.body.toString('latin1');
      if (f.flags & END) this.collecting = null;
      return;
    }
    if (name === 'DATA') {
      assert.ok(this.head !== null || (this.result !== null && !this.complete), 'DATA before HEAD');
      this.data.push(f.body);
      this.host.emit('data', this);
      if (f.flags & END) this.finish();
      return;
    }
    assert.equal(name, 'RESULT');
    this.resultCount++;
    assert.equal(this.resultCount, 1, 'RESULT twice');
    this.result = f.head;
    this.data.push(f.body);
    if (f.flags & SETTLED) {
      this.settledCount++;
      assert.equal(this.settledCount, 1);
      this.onSettled();
    }
    if (f.flags & END) this.finish();
  }

  finish() {
    this.complete = true;
    this.onAnswer(this);
  }

  get outcome() {
    return this.result.outcome ?? 'ok';
  }
  get error() {
    return this.result.error;
  }
  get text() {
    return Buffer.concat(this.data).toString();
  }
  get value() {
    return this.text === '' ? undefined : JSON.parse(this.text);
  }
  get isSettled() {
    return this.settledCount === 1;
  }
}

class Host extends EventEmitter {
  constructor(limits) {
    super();
    this.limits = {
      protocol: 1,
      streamWindow: 262144,
      logWindow: 262144,
      maxInput: 6 << 20,
      maxOutput: 6 << 20,
      maxLog: 65536,
      cacheEntries: 64,
      cacheBytes: 32 << 20,
      ...limits,
    };
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'pk-'));
    this.path = path.join(this.dir, 'link');
    this.egress = path.join(this.dir, 'egress');
    this.next = 1;
    this.exchanges = new Map();
    this.loads = new Map();
    this.logs = []; // stream 0
    this.logCredit = 0;
    this.pongs = [];
    this.chunks = 0;
    this.output = '';
  }

  async start({ args = [], env = {} } = {}) {
    await this.listen();
    const flags = ['--experimental-vm-modules', '--disable-proto=delete', '--no-addons', '--no-warnings', ...args];
    this.child = spawn(
      process.execPath,
      [...flags, path.join(__dirname, '..', 'agent.js'), '--link', this.path, '--egress', this.egress],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: {
          PATH: process.env.PATH,
          NODE_OPTIONS: `--require=${path.join(__dirname, '..', 'egress.js')}`,
          PADDOCK_EGRESS: this.egress,
          ...env,
        },
      },
    );
    this.child.stdout.on('data', (d) => {
      this.output += d;
    });
    this.child.stderr.on('data', (d) => {
      this.output += d;
    });
    this.child.on('exit', (code, signal) => {
      this.exited = { code, signal };
      this.emit('exited');
    });
    await this.welcomed();
    return this;
  }

  async listen() {
    fs.rmSync(this.path, { force: true });
    this.server = net.createServer((socket) => {
      this.server.close(); // one connection, as the real host
      this.attach(socket);
    });
    this.server.listen(this.path);
    await once(this.server, 'listening');
  }

  async welcomed() {
    await Promise.race([
      once(this, 'hello'),
      once(this, 'exited').then(() => {
        throw new Error(`agent ended: ${this.output}`);
      }),
    ]);
  }

  attach(socket) {
    this.socket = socket;
    this.hello = null;
    let rest = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      this.chunks++;
      rest = Buffer.concat([rest, chunk]);
      for (let f; (f = decode(rest)) !== null;) {
        rest = rest.subarray(f.size);
        this.frame(f);
      }
    });
    socket.on('error', () => {});
    socket.on('close', () => this.emit('lost'));
  }

  send(...frames) {
    this.socket.write(Buffer.concat(frames));
  }

  frame(f) {
    const name = TYPES[f.type];
    if (this.hello === null) {
      assert.equal(name, 'HELLO');
      this.hello = f.head;
      this.logCredit = this.limits.logWindow;
      this.send(encode(T.WELCOME, 0, 0, this.limits));
      return this.emit('hello');
    }
    if (name === 'LOG') {
      this.logCredit -= f.payload;
      assert.ok(this.logCredit >= 0, 'the agent exceeded its log credit');
      if (f.stream === 0) return (this.logs.push({ ...f.head, text: f.body.toString() }), this.emit('log'));
    }
    if (name === 'PONG') return (this.pongs.push(f.body.toString('hex')), this.emit('pong'));
    if (name === 'LOADED' || name === 'LOAD_FAILED') {
      const done = this.loads.get(f.stream);
      assert.ok(done, `${name} without LOAD`);
      this.loads.delete(f.stream);
      return done({ name, ...f.head });
    }
    const exchange = this.exchanges.get(f.stream);
    assert.ok(exchange, `${name} on unknown stream ${f.stream}`);
    exchange.frame(f);
    if (name === 'LOG') this.emit('log');
  }

  creditLogs(bytes) {
    this.logCredit += bytes;
    const b = Buffer.alloc(4);
    b.writeUInt32BE(bytes);
    this.send(encode(T.WINDOW, 0, 0, undefined, b));
  }

  // load resolves with {name: LOADED | LOAD_FAILED, hash, error}.
  load(source, { kind, name = 'code.js', hash = sha(source) } = {}) {
    const stream = this.next++;
    const done = new Promise((resolve) => this.loads.set(stream, resolve));
    const body = Buffer.from(source);
    this.send(encode(T.LOAD, body.length <= MAX ? END : 0, stream, { hash, kind, name }, body.subarray(0, MAX)));
    for (let at = MAX; at < body.length; at += MAX) {
      this.send(encode(T.DATA, at + MAX >= body.length ? END : 0, stream, undefined, body.subarray(at, at + MAX)));
    }
    return done;
  }

  // open sends an INVOKE and returns its Exchange. input: a value, or bytes with {raw}. more: do not end the body.
  open(code, input, { raw, more = false, ...head } = {}) {
    const stream = this.next++;
    const exchange = new Exchange(this, stream, this.limits.streamWindow);
    this.exchanges.set(stream, exchange);
    const body = raw !== undefined ? Buffer.from(raw) : Buffer.from(input === undefined ? '' : JSON.stringify(input));
    const last = body.length <= MAX && !more;
    this.send(
      encode(T.INVOKE, last ? END : 0, stream, { id: `c${stream}`, code, ms: 10000, ...head }, body.subarray(0, MAX)),
    );
    for (let at = MAX; at < body.length; at += MAX) {
      this.send(
        encode(T.DATA, at + MAX >= body.length && !more ? END : 0, stream, undefined, body.subarray(at, at + MAX)),
      );
    }
    return exchange;
  }

  data(exchange, bytes, last = false) {
    this.send(encode(T.DATA, last ? END : 0, exchange.stream, undefined, Buffer.from(bytes)));
  }

  cancel(exchange, reason = 'gone') {
    this.send(encode(T.CANCEL, 0, exchange.stream, { reason }));
  }

  // run loads a source and calls it once, back to back, and waits for the answer.
  async run(source, input, options = {}) {
    this.load(source, { kind: options.loadKind, name: options.file });
    const { loadKind, file, ...head } = options;
    return this.open(sha(source), input, head).answered;
  }

  // pipe opens the call of a pipeline. steps: sources, or {source, fallback, secrets, rev, kept: not loaded, …} with what
  // stands in the head.
  pipe(kind, steps, input, { raw, ...head } = {}) {
    const values = [];
    const sets = [];
    const list = steps.map((step, i) => {
      const { source, fallback, secrets, rev = `r${i}`, kept, ...rest } = typeof step === 'string' ? { source: step } : step;
      if (!kept) this.load(source, { kind, name: `${rest.name ?? `s${i}`}.js` });
      const out = { name: `s${i}`, code: sha(source), ...rest };
      if (fallback !== undefined) {
        this.load(fallback, { kind, name: 'before.js' });
        out.fallback = sha(fallback);
      }
      if (secrets !== undefined) {
        out.set = sets.push({ rev, of: Object.entries(secrets).map((pair) => values.push(pair) - 1) }) - 1;
      }
      return out;
    });
    return this.open('f'.repeat(64), input, { raw, pipeline: 'login', kind, steps: list, values, sets, ...head });
  }

  ping(bytes = '0102030405060708') {
    this.send(encode(T.PING, 0, 0, undefined, Buffer.from(bytes, 'hex')));
    return once(this, 'pong');
  }

  unanswered() {
    return [...this.exchanges.values()]
      .filter((x) => x.result === null)
      .map((x) => x.stream)
      .join(' ');
  }

  async stop() {
    this.socket?.destroy();
    this.server.close();
    if (this.child && !this.exited) {
      this.child.kill('SIGKILL');
      await once(this, 'exited');
    }
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

// withHost runs a test against an agent of its own.
function withHost(test, limits, options) {
  return async () => {
    const host = new Host(limits);
    let watchdog;
    const stuck = new Promise((_, fail) => {
      watchdog = setTimeout(
        () =>
          fail(
            new Error(
              `the test is stuck; the agent says: ${host.output}; streams without an answer: ${host.unanswered()}`,
            ),
          ),
        90000, // one of them makes half a gigabyte of JSON, and machines can be busy
      );
    });
    try {
      await host.start(options);
      await Promise.race([test(host), stuck]);
      if (host.exited) assert.fail(`the agent ended: ${JSON.stringify(host.exited)} ${host.output}`);
    } finally {
      clearTimeout(watchdog);
      await host.stop();
    }
  };
}

// until waits for a condition that frames bring about.
async function until(host, holds, what = 'the condition') {
  const deadline = Date.now() + 5000;
  while (!holds()) {
    if (Date.now() > deadline) assert.fail(`${what} did not come about; agent says: ${host.output}`);
    await host.ping();
  }
}

module.exports = { Host, withHost, until, encode, decode, sha, T, TYPES, END, SETTLED };
