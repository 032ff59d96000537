'use strict';
// Outbox sends bodies that do not fit into one frame, or that wait for credit: DATA of at most 64 KiB, streams in turn,
// and no more than the socket takes. A call's outbox is {parts: [{bytes, done, head}], value, last, settle}: value = the rest
// of a RESULT's value, so that the last DATA carries END; last = a RESULT that follows the parts; settle = a SETTLED
// that follows everything. A part with a head is a STEP's state: the first of it goes in that frame, the last has END.

const P = require('./primordials.js');
const { TYPE, END, SETTLED, MAX_BODY } = require('./wire.js');

const RESERVE = 4096; // of a stream's credit, for RESULT
const BACKLOG = 1 << 20; // bytes that may wait in the socket

const { subarray } = P;

class Outbox {
  // waiting() returns how many bytes the socket has not taken yet.
  constructor(writer, waiting) {
    this.writer = writer;
    this.waiting = waiting;
    this.ring = P.newMap(); // Call → true, those that may be able to send
  }

  add(call) {
    this.ring.set(call, true);
  }

  // drop forgets what a call has not sent yet.
  drop(call) {
    const box = call.outbox;
    call.outbox = null;
    this.ring.delete(call);
    if (box !== null) for (let i = 0; i < box.parts.length; i++) done(call, box.parts[i]);
  }

  // stop tells everybody that nothing will be sent any more.
  stop() {
    const over = this.ring;
    this.ring = P.newMap();
    over.forEach((_, call) => this.drop(call));
  }

  // pump sends a frame of each call in turn until nobody can send more, or the socket has enough ('drain' comes back
  // here).
  pump() {
    let more = this.ring.size > 0;
    const visit = (_, call) => {
      if (this.waiting() > BACKLOG) return;
      if (this.step(call)) more = true;
      else this.ring.delete(call);
    };
    while (more && this.waiting() <= BACKLOG) {
      more = false;
      this.ring.forEach(visit);
    }
  }

  // step sends one frame of a call and says whether there may be more.
  step(call) {
    const box = call.outbox;
    if (box === null) return false;
    const part = box.parts[0];
    if (part === undefined) return this.finish(call, box);
    const room = call.window - RESERVE;
    if (room <= 0) return false; // WINDOW adds us again
    const step = part.head !== null;
    const frame = step && part.head !== '' ? 4 + P.byteLength(part.head) : 0;
    if (room <= frame) return false;
    const size = P.min(part.bytes.length, MAX_BODY, room - frame);
    const whole = size === part.bytes.length;
    const end = whole && (step || (box.value && box.parts.length === 1)) ? END : 0;
    const bytes = subarray(part.bytes, 0, size);
    if (frame > 0) {
      call.window -= this.writer.bytes(TYPE.STEP, end, call.stream, part.head, bytes);
      part.head = '';
    } else {
      call.window -= this.writer.plain(TYPE.DATA, end, call.stream, bytes);
    }
    if (!whole) {
      part.bytes = subarray(part.bytes, size);
      return true;
    }
    shift(box.parts);
    done(call, part);
    return call.outbox === box && (box.parts.length > 0 || this.finish(call, box));
  }

  // finish sends what follows the body. Returns false: nothing is left.
  finish(call, box) {
    const { link } = call;
    if (box.last !== null) {
      call.window -= this.writer.text(TYPE.RESULT, END | box.last.flag, call.stream, box.last.head, '');
    }
    const over = box.value || box.last !== null;
    call.outbox = null;
    if (!over) return false;
    if (box.settle) this.writer.plain(TYPE.SETTLED, 0, call.stream, null);
    if (call.settled) link.calls.delete(call.stream);
    return false;
  }
}

// done runs a part's callback in its call's async context: tenant code goes on writing in there.
function done(call, part) {
  if (part.done !== null) call.link.options.context.run(call, part.done);
}

const shift = P.uncurry(Array.prototype.shift);

module.exports = { Outbox, RESERVE };
