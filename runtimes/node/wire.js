'use strict';
// Frames of the link (protocol 1, see ../link.md): numbers, the Writer that gathers frames into one buffer per
// event-loop turn, and the Reader that cuts what came into frames without copying. No streams, no credit, no sockets
// here.

const P = require('./primordials.js');

const TYPE = P.freeze({
  HELLO: 1,
  WELCOME: 2,
  LOAD: 3,
  LOADED: 4,
  LOAD_FAILED: 5,
  NOT_LOADED: 6,
  INVOKE: 7,
  DATA: 8,
  WINDOW: 9,
  HEAD: 10,
  STEP: 11,
  RESULT: 12,
  SETTLED: 13,
  LOG: 14,
  CANCEL: 15,
  PING: 16,
  PONG: 17,
});
const END = 1;
const SETTLED = 2;

const MAX_BODY = 65536; // of one frame
const MAX_HEAD = 65536; // of a head from this side
const START = 10; // length, type, flags, stream
const MAX_HOST_FRAME = 6 + 4 + 524288 + MAX_BODY;
const BUFFER = 4 * MAX_BODY;

const { utf8Write, copyBytes, subarray, bufferAllocSlow, bufferFrom } = P;

function put32(b, at, n) {
  b[at] = n >>> 24;
  b[at + 1] = n >>> 16;
  b[at + 2] = n >>> 8;
  b[at + 3] = n;
}

function get32(b, at) {
  return b[at] * 16777216 + ((b[at + 1] << 16) | (b[at + 2] << 8) | b[at + 3]);
}

// Writer collects frames. write(bytes) hands a batch on and says whether the buffer may be used again at once. Methods
// that take text return the bytes of payload that they wrote, which credit counts.
class Writer {
  constructor(write) {
    this.write = write;
    this.buffer = bufferAllocSlow(BUFFER);
    this.used = 0;
  }

  // room makes space for size bytes, which never exceed the buffer.
  room(size) {
    if (this.used + size > BUFFER) this.flush();
  }

  flush() {
    if (this.used === 0) return;
    const free = this.write(subarray(this.buffer, 0, this.used));
    if (!free) this.buffer = bufferAllocSlow(BUFFER);
    this.used = 0;
  }

  start(type, flags, stream, payload) {
    const b = this.buffer;
    const at = this.used;
    put32(b, at, 6 + payload);
    b[at + 4] = type;
    b[at + 5] = flags;
    put32(b, at + 6, stream);
  }

  // plain writes a frame without a head. payload is null or bytes, at most 64 KiB.
  plain(type, flags, stream, payload) {
    const size = payload === null ? 0 : payload.length;
    this.room(START + size);
    this.start(type, flags, stream, size);
    if (size > 0) copyBytes(this.buffer, payload, this.used + START);
    this.used += START + size;
    return size;
  }

  window(stream, grant) {
    this.room(START + 4);
    this.start(TYPE.WINDOW, 0, stream, 4);
    put32(this.buffer, this.used + START, grant);
    this.used += START + 4;
  }

  // text writes a frame with a head, both parts text of at most 65,536 / 3 units, so that their bytes need no counting
  // first.
  text(type, flags, stream, head, body) {
    this.room(START + 4 + 3 * (head.length + body.length));
    const b = this.buffer;
    let at = this.used + START + 4;
    let headBytes = 0;
    if (head.length > 0) headBytes = utf8Write(b, head, at);
    at += headBytes;
    if (body.length > 0) at += utf8Write(b, body, at);
    const payload = at - this.used - START;
    this.start(type, flags, stream, payload);
    put32(b, this.used + START, headBytes);
    this.used = at;
    return payload;
  }

  // bytes writes a frame with a head as text (at most 64 KiB) and a body of bytes (at most 64 KiB).
  bytes(type, flags, stream, head, body) {
    const headBytes = bufferFrom(head, 'utf8');
    const payload = 4 + headBytes.length + body.length;
    this.room(START + payload);
    this.start(type, flags, stream, payload);
    put32(this.buffer, this.used + START, headBytes.length);
    copyBytes(this.buffer, headBytes, this.used + START + 4);
    copyBytes(this.buffer, body, this.used + START + 4 + headBytes.length);
    this.used += START + payload;
    return payload;
  }
}

// TEXT is the most units of text that Writer.text may be given in one part.
const TEXT = 21845;

// Reader cuts chunks into frames and calls onFrame(type, flags, stream, buffer, start, end) for each; the buffer is
// valid only during the call. What is no frame of the host's calls onBroken: there is nobody to talk to then.
class Reader {
  constructor(onFrame, onBroken) {
    this.onFrame = onFrame;
    this.onBroken = onBroken;
    this.rest = null;
    this.over = false;
  }

  feed(chunk, size) {
    let b = chunk;
    let end = size;
    if (this.rest !== null) {
      b = bufferAllocSlow(this.rest.length + size);
      copyBytes(b, this.rest, 0);
      copyBytes(b, subarray(chunk, 0, size), this.rest.length);
      end = b.length;
      this.rest = null;
    }
    let at = 0;
    while (end - at >= 4 && !this.over) {
      const length = get32(b, at);
      if (length < 6 || length > MAX_HOST_FRAME) return this.broken(length);
      const next = at + 4 + length;
      if (next > end) break;
      this.onFrame(b[at + 4], b[at + 5], get32(b, at + 6), b, at + START, next);
      at = next;
    }
    if (at < end && !this.over) {
      this.rest = bufferAllocSlow(end - at);
      copyBytes(this.rest, subarray(b, at, end), 0);
    }
  }

  stop() {
    this.over = true;
    this.rest = null;
  }

  broken(length) {
    this.stop();
    this.onBroken(`a frame of ${length} bytes`);
  }
}

module.exports = { TYPE, END, SETTLED, MAX_BODY, MAX_HEAD, TEXT, START, Writer, Reader, get32 };
