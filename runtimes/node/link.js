'use strict';
// The agent's end of the link: connects, says HELLO, takes calls, gathers all frames of one event-loop turn into one
// write, keeps credit both ways, and comes back after a lost connection. It knows calls and their bodies, not how code
// is run: that is given to it (run). Protocol: ../link.md.

const net = require('node:net');
const P = require('./primordials.js');
const { TYPE, END, SETTLED, MAX_BODY, MAX_HEAD, TEXT, Reader, Writer, get32 } = require('./wire.js');
const { Call } = require('./call.js');
const { Cache, Code } = require('./code.js');
const { describeLoad, clip } = require('./errors.js');
const { Pipeline, planOf } = require('./pipeline.js');
const { Lines } = require('./lines.js');
const { Outbox, RESERVE } = require('./outbox.js');

const {
  jsonParse,
  jsonStringify: quote,
  utf8Slice,
  byteLength,
  bufferFrom,
  bufferAllocSlow,
  copyBytes,
  subarray,
  now,
} = P;

const ATTEMPTS = 240;
const PAUSE_MS = 250;
const READ_BUFFER = 256 << 10;
const TURN_MS = 1; // a turn that lasts longer sends what it has
const BURST_MS = 20; // and one that lasts longer than this begins no more calls: CANCEL and PING must be read in time

const socketDescription = P.describe(net.Socket.prototype);
const netConnect = net.connect;

// Turn is one read from the socket: the moment that its calls began.
class Turn {
  constructor(start) {
    this.start = start;
    this.cpu = -1; // of the process at start in µs, once known
  }
}

const cpuNow = () => {
  const used = P.cpuUsage();
  return used.user + used.system;
};

class Link {
  // options: {path, agent (its hash), run (called with each Call in its async context), context (the async context's
  // store), report (level, text of what the agent itself has to say), giveUp (called when reconnecting has failed)}.
  constructor(options) {
    this.options = options;
    this.cache = new Cache();
    this.lines = new Lines(this);
    this.limits = { streamWindow: 262144, logWindow: 262144, maxInput: 6 << 20, maxOutput: 6 << 20, maxLog: 65536 };
    this.epoch = 0; // counts connections; calls of an older one are dead
    this.reconnects = 0;
    this.attempts = 0;
    this.socket = null;
    this.calls = P.newMap(); // stream → Call that is not both settled and sent
    this.uploads = P.newMap(); // stream → LOAD whose source still comes
    this.turn = new Turn(0);
    this.late = false; // the turn begins no more calls
    this.backlog = []; // calls that wait for a later turn
    this.flushedAt = 0;
    this.flushAsked = false;
    this.fences = []; // to be called when all that was written has left
    this.onImmediate = () => {
      this.flushAsked = false;
      this.flush();
      if (this.backlog.length > 0) this.goOn();
      else this.late = false;
    };
    this.chunk = bufferAllocSlow(READ_BUFFER);
  }

  connect() {
    this.epoch++;
    const epoch = this.epoch;
    const reader = new Reader(
      (type, flags, stream, b, start, end) => this.frame(type, flags, stream, b, start, end),
      (what) => this.socket?.destroy(),
    );
    const socket = P.arm(
      netConnect({
        path: this.options.path,
        onread: { buffer: this.chunk, callback: (size, b) => this.read(reader, b, size) },
      }),
      socketDescription,
    );
    this.socket = socket;
    this.writer = new Writer((bytes) => {
      socket.write(bytes);
      return socket.writableLength === 0;
    });
    this.outbox = new Outbox(this.writer, () => socket.writableLength);
    socket.on('connect', () => this.hello());
    socket.on('drain', () => this.wake());
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => {
      reader.stop();
      if (epoch === this.epoch) this.lost();
    });
  }

  hello() {
    const { agent } = this.options;
    this.writer.text(
      TYPE.HELLO,
      0,
      0,
      `{"protocol":1,"runtime":"node","version":${quote(process.version)},"agent":${quote(agent)},` +
        `"reconnects":${this.reconnects}}`,
      '',
    );
    this.flush();
  }

  // lost cancels every call, whose output goes nowhere from now on, and tries again: by attempts, since clocks run on
  // while a container is frozen.
  lost() {
    this.epoch++;
    this.lines.window = 0;
    this.outbox.stop();
    this.fences = [];
    const over = this.calls;
    this.calls = P.newMap();
    this.uploads = P.newMap();
    over.forEach((call) => this.options.context.run(call, () => call.cancel()));
    if (this.attempts++ >= ATTEMPTS) return this.options.giveUp();
    P.setTimeout(() => this.connect(), PAUSE_MS);
  }

  // welcome takes the host's limits; whatever an older connection left is over.
  welcome(head) {
    this.attempts = 0;
    this.reconnects++;
    const limits = this.limits;
    for (const name of ['streamWindow', 'logWindow', 'maxInput', 'maxOutput', 'maxLog']) {
      if (P.isFinite(head[name])) limits[name] = head[name];
    }
    this.cache.limit(head.cacheEntries ?? 64, head.cacheBytes ?? 32 << 20);
    this.lines.window = limits.logWindow;
  }

  // busy says whether the host has ever sent code or a call.
  busy() {
    return this.uploads.size > 0 || this.cache.last !== null || this.calls.size > 0;
  }

  read(reader, b, size) {
    if (!this.flushAsked) {
      this.turn = new Turn(now());
      this.late = false;
    }
    this.flushedAt = this.turn.start;
    reader.feed(b, size);
    return true;
  }

  // wake asks for a flush at the end of this turn.
  wake() {
    if (this.flushAsked) return;
    this.flushAsked = true;
    P.setImmediate(this.onImmediate);
  }

  flush() {
    this.outbox.pump();
    this.writer.flush();
    // What this turn's calls burned so far is known from the clock; those that go on are counted from here.
    if (this.calls.size > 0 && this.turn.cpu < 0) this.turn.cpu = cpuNow() - (now() - this.turn.start) * 1000;
    if (this.fences.length > 0) this.passFences();
  }

  frame(type, flags, stream, b, start, end) {
    switch (type) {
      case TYPE.INVOKE:
        return this.invoke(flags, stream, b, start, end);
      case TYPE.DATA:
        return this.data(flags, stream, b, start, end);
      case TYPE.WINDOW:
        return this.credit(stream, get32(b, start));
      case TYPE.CANCEL:
        return this.cancel(stream);
      case TYPE.LOAD:
        return this.load(flags, stream, b, start, end);
      case TYPE.PING:
        this.writer.plain(TYPE.PONG, 0, 0, subarray(b, start, end));
        return this.wake();
      case TYPE.WELCOME:
        return this.welcome(this.head(b, start));
      default: // of a later protocol: not ours
    }
  }

  head(b, start) {
    const size = get32(b, start);
    return size === 0 ? {} : jsonParse(utf8Slice(b, start + 4, start + 4 + size));
  }

  invoke(flags, stream, b, start, end) {
    const head = this.head(b, start);
    const body = start + 4 + get32(b, start);
    const piped = P.hasOwn(head, 'steps');
    const plan = piped ? planOf(head, this.cache) : null;
    const code = piped ? null : this.cache.get(head.code);
    if (code === undefined || (piped && plan.missing.length > 0)) {
      return this.notLoaded(stream, piped ? plan.missing : [head.code]);
    }
    const call = new Call(this, stream, head, code, this.turn);
    this.calls.set(stream, call);
    if (piped) call.pipeline = new Pipeline(call, plan.steps);
    if (code !== null && code.error !== null) {
      call.end('{"outcome":"load_error","error":' + describeLoad(code.error), '', true);
      return;
    }
    if ((flags & END) !== 0 && !call.http) {
      call.whole = true;
      call.raw = utf8Slice(b, body, end);
      this.begin(call);
    } else {
      call.chunks = [];
      if (call.http) this.begin(call);
      this.take(call, b, body, end, (flags & END) !== 0);
    }
    if (!this.tick() && !call.ended) this.wake(); // to know what the turn burned
  }

  notLoaded(stream, hashes) {
    const more = hashes.length > 1 ? `,"missing":${quote(hashes)}` : '';
    this.writer.text(TYPE.NOT_LOADED, 0, stream, `{"hash":${quote(hashes[0])}${more}}`, '');
    this.wake();
  }

  // tick looks at the clock after a call has begun: it says whether the turn has sent what it has.
  tick() {
    const time = now();
    if (time - this.turn.start > BURST_MS) this.late = true;
    if (time - this.flushedAt <= TURN_MS) return false;
    this.flushedAt = time;
    this.flush();
    return true;
  }

  begin(call) {
    if (this.late) {
      call.waiting = true;
      P.arrayPush(this.backlog, call);
      return this.wake();
    }
    this.options.context.run(call, this.options.run, call);
  }

  // goOn begins calls that had to wait, after what came meanwhile was read. Behind more work than their time allows, the
  // oldest would each begin just before their deadline and be thrown away half done: then the newest goes first, and what
  // has no time left is cancelled without ever having run.
  goOn() {
    this.turn = new Turn(now());
    this.flushedAt = this.turn.start;
    this.late = false;
    const { backlog } = this;
    while (backlog.length > 0 && !this.late) {
      const oldest = backlog[0];
      const hurry = this.turn.start - oldest.started > (oldest.head.ms ?? 0) / 2;
      const call = hurry ? P.arrayPop(backlog) : P.arrayShift(backlog);
      call.waiting = false;
      if (call.ended || call.epoch !== this.epoch) continue;
      call.turn = this.turn;
      this.options.context.run(call, this.options.run, call);
      this.tick();
    }
    this.wake();
  }

  data(flags, stream, b, start, end) {
    const call = this.calls.get(stream);
    const last = (flags & END) !== 0;
    if (call === undefined) {
      const upload = this.uploads.get(stream);
      if (upload !== undefined) this.uploaded(upload, stream, b, start, end, last);
      return;
    }
    if (call.whole || call.chunks === null) return;
    this.take(call, b, start, end, last);
    // A value is read at once. A stream is granted as the code reads it.
    if ((!call.http || call.onWhole !== null) && !last) this.grant(call, end - start);
  }

  // take adds a part of a call's body.
  take(call, b, start, end, last) {
    if (end > start) {
      const chunk = bufferAllocSlow(end - start);
      copyBytes(chunk, subarray(b, start, end), 0);
      if (call.onData !== null) this.options.context.run(call, call.onData, chunk);
      else P.arrayPush(call.chunks, chunk);
      call.received += chunk.length;
    }
    if ((!call.http || call.onWhole !== null) && call.received > this.limits.maxInput) {
      call.whole = true;
      call.chunks = null;
      return call.invalid(`the input is larger than ${this.limits.maxInput} bytes`);
    }
    if (!last) return;
    call.whole = true;
    if (call.ended && call.onData === null) return;
    if (!call.http) {
      call.raw = utf8Slice(P.concat(call.chunks));
      call.chunks = null;
      this.begin(call);
    } else if (call.onData !== null) {
      this.options.context.run(call, call.onData, null);
    } else if (call.onWhole !== null) {
      this.options.context.run(call, call.onWhole);
    }
  }

  // grant lets the host send so many bytes more on a call's stream.
  grant(call, bytes) {
    if (call.epoch !== this.epoch || call.whole || bytes <= 0) return;
    this.writer.window(call.stream, bytes);
    this.wake();
  }

  credit(stream, bytes) {
    if (stream === 0) {
      this.lines.window += bytes;
      return;
    }
    const call = this.calls.get(stream);
    if (call === undefined) return;
    call.window += bytes;
    if (call.outbox !== null) {
      this.outbox.add(call);
      this.wake();
    }
  }

  cancel(stream) {
    const call = this.calls.get(stream);
    if (call !== undefined) this.options.context.run(call, () => call.cancel());
  }

  load(flags, stream, b, start, end) {
    const upload = { head: this.head(b, start), chunks: [] };
    this.uploads.set(stream, upload);
    this.uploaded(upload, stream, b, start + 4 + get32(b, start), end, (flags & END) !== 0);
  }

  uploaded(upload, stream, b, start, end, last) {
    const chunk = bufferAllocSlow(end - start);
    copyBytes(chunk, subarray(b, start, end), 0);
    P.arrayPush(upload.chunks, chunk);
    if (!last) return;
    this.uploads.delete(stream);
    const { hash, kind, name } = upload.head;
    const code = new Code(hash, kind ?? 'auto', name ?? 'code.js', utf8Slice(P.concat(upload.chunks)));
    this.cache.add(code);
    if (code.error === null) {
      this.writer.text(TYPE.LOADED, 0, stream, `{"hash":${quote(hash)}}`, '');
    } else {
      this.writer.text(TYPE.LOAD_FAILED, 0, stream, `{"hash":${quote(hash)},"error":${describeLoad(code.error)}}`, '');
    }
    this.wake();
  }

  // result sends RESULT. head is the open text of its head, or ''; body is JSON text.
  result(call, head, body, settled) {
    if (call.epoch !== this.epoch) return;
    this.lines.noteDropped(call);
    const cpu = this.burned(call);
    if (cpu > 0) head = head === '' ? '{"cpu":' + cpu : head + ',"cpu":' + cpu;
    if (call.warnings !== null) head += (head === '' ? '{' : ',') + '"warnings":' + warningsText(call.warnings);
    if (head !== '') head += '}';
    const flag = settled ? SETTLED : 0;
    if (body.length <= TEXT && head.length <= TEXT && call.outbox === null) {
      call.window -= this.writer.text(TYPE.RESULT, END | flag, call.stream, head, body);
      if (settled) this.calls.delete(call.stream);
    } else {
      this.longResult(call, head, flag, body);
    }
    this.wake();
  }

  // longResult sends a RESULT whose parts are too long for the short way, or that waits behind a body.
  longResult(call, head, flag, body) {
    if (byteLength(head) > MAX_HEAD)
      head = '{"outcome":"error","error":{"name":"Error","message":"the error is too long to be shown"}}';
    const bytes = bufferFrom(body, 'utf8');
    if (call.outbox === null && bytes.length <= MAX_BODY) {
      call.window -= this.writer.bytes(TYPE.RESULT, END | flag, call.stream, head, bytes);
      if (flag !== 0) this.calls.delete(call.stream);
      return;
    }
    if (call.outbox !== null) {
      // behind the response's DATA: no body of its own
      call.outbox.last = { head, flag };
    } else {
      call.window -= this.writer.bytes(TYPE.RESULT, flag, call.stream, head, subarray(bytes, 0, MAX_BODY));
      call.outbox = {
        parts: [{ bytes: subarray(bytes, MAX_BODY), done: null, head: null }],
        value: true,
        last: null,
        settle: false,
      };
    }
    this.outbox.add(call);
  }

  // burned returns the µs of CPU since the call's turn began, 0 if that is this turn and a short one.
  burned(call) {
    const { turn } = call;
    if (turn.cpu >= 0) return P.max(1, P.round(cpuNow() - turn.cpu));
    const ms = now() - turn.start;
    return ms > TURN_MS ? P.round(ms * 1000) : 0;
  }

  // step sends a STEP at once, with the state after it, '' for none, and says whether it has left. If not, done is called
  // when it has, which a connection that is lost keeps from happening.
  step(call, head, state, done) {
    if (call.epoch !== this.epoch) return false;
    const room = call.window - RESERVE - 4;
    if (head.length <= TEXT && state.length <= TEXT && 3 * (head.length + state.length) <= room) {
      call.window -= this.writer.text(TYPE.STEP, END, call.stream, head, state);
      this.push();
      if (this.outbox.waiting() === 0) return true;
      this.fence(call, done);
      return false;
    }
    const part = { bytes: bufferFrom(state, 'utf8'), done: () => this.fence(call, done), head };
    call.outbox = { parts: [part], value: false, last: null, settle: false };
    this.outbox.add(call);
    this.wake();
    return false;
  }

  // refusedStep sends a STEP that waits for nobody.
  refusedStep(call, head) {
    if (call.epoch !== this.epoch) return;
    call.window -= this.writer.bytes(TYPE.STEP, END, call.stream, head, EMPTY);
    this.push();
  }

  // push writes now what has gathered: code that runs next may never come to an end.
  push() {
    this.writer.flush();
    this.wake();
  }

  // fence calls done, in the call's async context, once all that was written before has left the process.
  fence(call, done) {
    P.arrayPush(this.fences, () => this.options.context.run(call, done));
    this.wake();
  }

  passFences() {
    const due = this.fences;
    this.fences = [];
    const pass = (e) => {
      for (let i = 0; !e && i < due.length; i++) due[i]();
    };
    if (this.outbox.waiting() === 0) pass();
    else this.socket.write(EMPTY, pass);
  }

  settled(call) {
    if (call.epoch !== this.epoch) return;
    if (call.outbox !== null) {
      call.outbox.settle = true; // after the last of the body
      return;
    }
    this.writer.plain(TYPE.SETTLED, 0, call.stream, null);
    this.calls.delete(call.stream);
    this.wake();
  }

  // respond sends HEAD. headers is the JSON text of a list of pairs.
  respond(call, status, headers) {
    const head = `{"status":${status},"headers":${headers}}`;
    if (byteLength(head) > MAX_HEAD) return false;
    call.headSent = true;
    if (call.epoch !== this.epoch) return true;
    call.window -= this.writer.bytes(TYPE.HEAD, 0, call.stream, head, EMPTY);
    this.wake();
    return true;
  }

  // body sends DATA under credit; done is called once it has been handed on, or dropped.
  body(call, bytes, done) {
    if (call.epoch !== this.epoch || call.ended) return done();
    if (call.outbox === null) call.outbox = { parts: [], value: false, last: null, settle: false };
    P.arrayPush(call.outbox.parts, { bytes, done, head: null });
    this.outbox.add(call);
    this.wake();
  }

  // dropBody forgets what was not sent yet of a call's body: it was cancelled, or failed.
  dropBody(call) {
    const box = call.outbox;
    if (box === null) return;
    this.outbox.drop(call);
    if (call.ended && box.settle && call.epoch === this.epoch) this.writer.plain(TYPE.SETTLED, 0, call.stream, null);
    if (call.ended && call.settled) this.calls.delete(call.stream);
  }
}

const EMPTY = Buffer.alloc(0);

function warningsText(list) {
  let out = '[';
  for (let i = 0; i < list.length; i++) out += (i > 0 ? ',' : '') + quote(clip(list[i], 512));
  return out + ']';
}

module.exports = { Link };
