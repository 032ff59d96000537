'use strict';
// Lets an HTTP-shaped function answer through real http.IncomingMessage and http.ServerResponse objects (frameworks
// replace their prototypes, so nothing less will do) over a socket that is none. The response's head is taken where
// node formats it; the body goes out as DATA under credit, the request's body comes in as the code reads.

const http = require('node:http');
const { Duplex } = require('node:stream');
const P = require('./primordials.js');
const { AgentError } = require('./errors.js');

const { IncomingMessage, ServerResponse } = http;
const storeHeader = P.uncurry(ServerResponse.prototype._storeHeader);
const addHeaderLines = P.uncurry(IncomingMessage.prototype._addHeaderLines);
const { jsonStringify: quote, stringIndexOf, stringSlice, stringSplit, stringToLowerCase } = P;

// What belongs to a connection, which there is none of, or is the front's to set.
const HOP = P.freeze({
  __proto__: null,
  connection: true,
  'keep-alive': true,
  'transfer-encoding': true,
  date: true,
  upgrade: true,
  trailer: true,
  'proxy-connection': true,
  te: true,
});

// Wire is the socket of one exchange: what is written to it is the response's body.
class Wire extends Duplex {
  constructor(call) {
    super({ allowHalfOpen: true, emitClose: false });
    this.call = call;
    this.onGone = null; // start's: the code, or a cancel, cut the exchange
    this.encrypted = true;
    this.remoteAddress = '0.0.0.0';
    this.remotePort = 0;
    this.localAddress = '0.0.0.0';
    this.localPort = 0;
  }

  _read() {}

  _write(chunk, encoding, done) {
    if (chunk.length === 0) return done();
    this.call.link.body(this.call, chunk, done);
  }

  _destroy(error, done) {
    done();
    P.nextTick(() => this.onGone?.());
  }

  setTimeout() {
    return this;
  }
  setNoDelay() {
    return this;
  }
  setKeepAlive() {
    return this;
  }
  ref() {
    return this;
  }
  unref() {
    return this;
  }
  address() {
    return {};
  }
}

// parseHead turns node's text of a response head into the JSON of a list of pairs.
function parseHead(text) {
  const lines = stringSplit(text, '\r\n');
  let out = '[';
  for (let i = 1; i < lines.length; i++) {
    const colon = stringIndexOf(lines[i], ': ');
    if (colon <= 0) continue;
    const name = stringSlice(lines[i], 0, colon);
    if (HOP[stringToLowerCase(name)] === true) continue;
    out += (out === '[' ? '[' : ',[') + quote(name) + ',' + quote(stringSlice(lines[i], colon + 2)) + ']';
  }
  return out + ']';
}

// own defines a method that no change of the object's prototype hides.
function own(object, name, value) {
  P.defineProperty(object, name, { value, writable: true, configurable: true, enumerable: false });
}

function makeRequest(call, head, wire) {
  const req = new IncomingMessage(wire);
  req.method = head.method;
  req.url = head.url;
  req.httpVersion = '1.1';
  req.httpVersionMajor = 1;
  req.httpVersionMinor = 1;
  const flat = [];
  for (let i = 0; i < head.headers.length; i++) {
    P.arrayPush(flat, head.headers[i][0]);
    P.arrayPush(flat, head.headers[i][1]);
  }
  addHeaderLines(req, flat, flat.length);
  // Adapters of webtask-tools cut the function's own path off; url_format 3 with no name has none.
  own(req, 'x_wt', {
    container: call.head.tenant ?? '',
    jtn: '',
    url_format: 3,
    ectx: call.head.secrets,
    pctx: {},
    meta: call.head.meta,
  });
  let owed = 0;
  own(req, '_read', () => {
    if (owed > 0) call.link.grant(call, owed);
    owed = 0;
  });
  const onData = (chunk) => {
    if (req.destroyed) {
      if (chunk !== null) call.link.grant(call, chunk.length); // nobody reads: let the host get rid of it
      return;
    }
    if (chunk === null) {
      req.complete = true;
      req.push(null);
    } else if (req.push(chunk)) {
      call.link.grant(call, chunk.length);
    } else {
      owed += chunk.length;
    }
  };
  return { req, onData };
}

function makeResponse(call, req, wire) {
  const res = new ServerResponse(req);
  res.useChunkedEncodingByDefault = false;
  res.sendDate = false;
  own(res, '_storeHeader', function (firstLine, headers) {
    storeHeader(this, firstLine, headers);
    this.chunkedEncoding = false;
    const status = this.statusCode;
    const text = this._header;
    this._headerSent = true; // it leaves in its own frame
    if (call.ended) return;
    if (status < 200 || status > 599)
      throw new AgentError('RangeError', `The status ${status} cannot be sent`, 'ERR_HTTP_INVALID_STATUS_CODE');
    if (!call.link.respond(call, status, parseHead(text))) {
      throw new AgentError('RangeError', "The response's headers are larger than 64 KiB", 'ERR_HTTP_HEADERS_TOO_LARGE');
    }
  });
  // Interim responses have no frame.
  own(res, 'writeContinue', (done) => done?.());
  own(res, 'writeProcessing', (done) => done?.());
  own(res, 'writeEarlyHints', (hints, done) => done?.());
  res.assignSocket(wire);
  return res;
}

const needDrain = Object.getOwnPropertySymbols(new ServerResponse({ method: 'GET' })).find(
  (s) => s.description === 'kNeedDrain',
);

// start runs fn(req, res). The call is answered when the response is complete and settled when it is closed and a
// returned promise has settled.
function start(call, fn) {
  const head = call.head.http ?? {
    method: 'POST',
    url: '/',
    headers: [
      ['Content-Type', 'application/json'],
      ['Content-Length', `${P.byteLength(call.raw)}`],
    ],
  };
  const wire = new Wire(call);
  const { req, onData } = makeRequest(call, head, wire);
  const res = makeResponse(call, req, wire);
  let closed = false;
  let waiting = false;
  const close = () => {
    if (closed) return;
    closed = true;
    res.destroyed = true;
    res._closed = true;
    res.emit('close');
  };
  res.on('finish', () => {
    call.complete(!waiting);
    P.nextTick(close);
  });
  wire.onGone = () => {
    close();
    if (!call.ended)
      call.fail(
        new AgentError('Error', 'The response was closed before it was complete', 'ERR_STREAM_PREMATURE_CLOSE'),
        !waiting,
      );
    else if (!waiting) call.settle();
  };
  wire.on('drain', () => {
    if (res.writableFinished) return;
    if (needDrain !== undefined) res[needDrain] = false;
    res.emit('drain');
  });
  call.onClose = () => {
    req.destroy();
    wire.destroy();
  };
  feed(call, req, onData);
  const value = fn(req, res);
  if (value === null || typeof value !== 'object' || typeof value.then !== 'function') return;
  waiting = true;
  const settled = () => {
    waiting = false;
    if (call.ended) call.settle();
  };
  const failed = (error) => {
    waiting = false;
    call.fail(error, true);
    if (!closed) wire.destroy();
  };
  if (P.isPromise(value)) P.then(value, settled, failed);
  else P.then(new P.Promise((resolve) => resolve(value)), settled, failed);
}

// feed gives the request what of the body is here, and has the rest follow.
function feed(call, req, onData) {
  if (!call.http) {
    if (call.raw !== '') req.push(P.bufferFrom(call.raw, 'utf8'));
    return onData(null);
  }
  const { chunks } = call;
  call.chunks = [];
  for (let i = 0; i < chunks.length; i++) onData(chunks[i]);
  if (call.whole) return onData(null);
  call.onData = onData;
}

module.exports = { start };
