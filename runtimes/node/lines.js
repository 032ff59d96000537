'use strict';
// Lines sends the log: within each call's bound and the link's one credit. What exceeds them is dropped and counted, and
// the next line that goes says how much was lost before it.

const P = require('./primordials.js');
const { TYPE, MAX_BODY, TEXT } = require('./wire.js');
const { shown, clip } = require('./errors.js');

const { byteLength, bufferFrom } = P;

const HEAD = 132; // more than a LOG's head takes, its length included
const LEAST = 256; // bytes worth sending of a line that does not fit

class Lines {
  constructor(link) {
    this.link = link;
    this.window = 0; // credit; nothing goes before WELCOME
    this.logDropped = 0; // of lines that are nobody's
  }

  // send sends a line of a call's log, also when the call is over and something that it left behind speaks; or a line of
  // nobody's (by undefined), or of a call of a former connection, whose secrets this one's host does not know: it is told. by is a
  // call, or a step of a pipeline.
  send(by, level, text) {
    const call = by === undefined ? undefined : by.owner;
    const known = call !== undefined && call.epoch === this.link.epoch;
    const owner = known ? call : this;
    const size = byteLength(text);
    const most = P.min(known ? call.logLeft : MAX_BODY, MAX_BODY, this.window - HEAD);
    if (most < 0 || (size > most && most < LEAST)) {
      owner.logDropped += size;
      return;
    }
    const sent = size > most ? clip(text, most) : text;
    const bytes = size > most ? byteLength(sent) : size;
    if (known) call.logLeft -= bytes;
    this.write(known ? call.stream : 0, owner, level, sent, known ? by.index : -1, call !== undefined && !known);
    owner.logDropped += size - bytes;
  }

  write(stream, owner, level, text, step, former) {
    const { writer } = this.link;
    const dropped = owner.logDropped > 0 ? ',"dropped":' + owner.logDropped : '';
    const of = former ? ',"former":true' : step < 0 ? '' : ',"step":' + step;
    const head = '{"level":"' + level + '","t":' + P.dateNow() + dropped + of + '}';
    owner.logDropped = 0;
    if (text.length <= TEXT) this.window -= writer.text(TYPE.LOG, 0, stream, head, text);
    else this.window -= writer.bytes(TYPE.LOG, 0, stream, head, bufferFrom(text, 'utf8'));
    this.link.wake();
  }

  // noteDropped tells, before RESULT, how much of a call's log did not fit.
  noteDropped(call) {
    if (call.logDropped > 0 && this.window >= HEAD) this.write(call.stream, call, 'warn', '', -1, false);
  }

  // report sends an error that is nobody's answer any more.
  report(call, error) {
    this.send(call, 'error', shown(error));
  }
}

module.exports = { Lines };
