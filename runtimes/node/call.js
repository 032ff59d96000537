'use strict';
// Call is one INVOKE: what it was given, whether it was answered (ended) and whether its code is over (settled). It is
// also the store of the async context, so that logs and late errors find it. The link writes its frames; shapes.js runs
// its code. Exactly one RESULT and one SETTLED leave, whatever the code does; everything after that is ignored.

const P = require('./primordials.js');
const { AgentError, describe, serializeError } = require('./errors.js');
const { jsonStringify, byteLength } = P;

const abort = P.uncurry(AbortController.prototype.abort);

// fits says whether text is at most so many bytes in UTF-8.
const fits = (text, most) => text.length * 3 <= most || (text.length <= most && byteLength(text) <= most);

class Call {
  constructor(link, stream, head, code, turn) {
    this.link = link;
    this.owner = this; // whose log it writes to: a step of a pipeline writes to its call's
    this.index = -1; // the step's
    this.pipeline = null; // of steps; then code is null
    this.epoch = link.epoch;
    this.stream = stream;
    this.head = head;
    this.code = code;
    this.turn = turn; // in which its code began, for the CPU that it burns
    this.started = turn.start; // when it came
    this.http = head.via === 'http';
    this.input = null; // the parsed value
    this.raw = ''; // its text, for an HTTP-shaped function called with a value
    this.chunks = null; // body still arriving
    this.received = 0; // bytes of it
    this.whole = false; // the body has ended
    this.waiting = false; // for a turn in which it may begin
    this.onData = null; // (chunk, last): set by http.js while the body is streamed
    this.onWhole = null; // set by who waits for the body's end
    this.user = null; // a rule's objects
    this.context = null;
    this.effects = null; // an action's, where there are some already
    this.globals = ''; // 'rule', 'action': which globals tenant code sees
    this.scratch = null; // globals.js: configuration and auth0 of this run
    this.ended = false;
    this.settled = false;
    this.onClose = null; // http.js: closes the response
    this.controller = null; // of ctx.signal, once somebody asked
    this.cancelled = false;
    this.window = link.limits.streamWindow; // bytes that may still be sent
    this.outbox = null; // body waiting for credit, kept by the link
    this.headSent = false;
    this.logLeft = head.maxLog ?? link.limits.maxLog;
    this.logDropped = 0;
    this.indent = ''; // of console.group
    this.warnings = null;
  }

  // answer ends the call with a value. settled: its code is over, too.
  answer(value, settled) {
    if (this.ended) return settled ? this.settle() : undefined;
    let text;
    try {
      text = jsonStringify(value);
    } catch (e) {
      if (this.ended) return settled ? this.settle() : undefined; // toJSON called process.exit
      return this.fail(serializeError(e), settled);
    }
    if (this.ended) return settled ? this.settle() : undefined;
    if (text === undefined) text = 'null';
    if (!this.fits(text)) return this.end('{"outcome":"output_too_large"', '', settled);
    this.end('', text, settled);
  }

  // fits says whether a value may be so long.
  fits(text) {
    return fits(text, this.head.maxOutput ?? this.link.limits.maxOutput);
  }

  // hear and deny are a step's: a refusal that is no answer yet.
  hear() {}
  deny() {}

  // fail ends the call with what the code threw, rejected or called back.
  fail(error, settled) {
    if (this.ended) return settled ? this.settle() : undefined;
    const text = describe(error, this.headSent ? 2048 : undefined);
    if (this.ended) return settled ? this.settle() : undefined; // a getter of the error did it
    this.ended = true; // as in cancel
    this.link.dropBody(this); // the response is cut
    this.end('{"outcome":"error","error":' + text, '', settled);
  }

  // invalid ends a call whose input is not what it should be; nothing of the code has run, or none of it will.
  invalid(message) {
    if (!this.ended)
      this.end('{"outcome":"invalid","error":' + describe(new AgentError('SyntaxError', message)), '', true);
  }

  // complete ends a call whose response was streamed.
  complete(settled) {
    if (this.ended) return settled ? this.settle() : undefined;
    this.end('{"outcome":"ok"', '', settled);
  }

  // end sends RESULT. head is the open text of its head, '' for an empty one.
  end(head, body, settled) {
    this.ended = true;
    if (settled) this.settled = true;
    this.link.result(this, head, body, settled);
    this.raw = '';
  }

  // settle says that the code is over. Before RESULT it means nothing.
  settle() {
    if (this.settled || !this.ended) return;
    this.settled = true;
    this.link.settled(this);
  }

  // thrown takes an exception or rejection that nobody handled, in this call's async context, and says whether it
  // became the answer. The chain that would have called back or resolved is most likely cut, so that nothing is left to
  // wait for: settled.
  thrown(error) {
    if (this.ended) return false;
    this.fail(error, true);
    this.close();
    return true;
  }

  // cancel answers at once; the code is asked to stop.
  cancel() {
    if (this.cancelled) return;
    this.cancelled = true;
    const answered = this.ended;
    if (this.pipeline !== null) this.pipeline.stop();
    this.ended = true; // what the callbacks of dropped parts write is dropped as well: nothing goes before the RESULT
    this.link.dropBody(this);
    // Waits for its turn, or for its input: the code never ran.
    const idle = this.pipeline !== null && this.pipeline.unsettled === 0;
    const never = idle || this.waiting || (!this.whole && (!this.http || this.onWhole !== null));
    if (!answered) this.end('{"outcome":"cancelled"', '', never);
    try {
      if (this.controller !== null) abort(this.controller);
    } catch (e) {
      this.link.lines.report(this, e);
    }
    this.close();
  }

  // close ends the response that the code was writing.
  close() {
    try {
      if (this.onClose !== null) this.onClose();
    } catch (e) {
      this.link.lines.report(this, e);
    }
  }

  // signal makes ctx.signal, aborted already if the call was cancelled.
  signal() {
    if (this.controller === null) {
      this.controller = new AbortControllerClass();
      if (this.cancelled) abort(this.controller);
    }
    return this.controller.signal;
  }
}

const AbortControllerClass = AbortController;

module.exports = { Call };
