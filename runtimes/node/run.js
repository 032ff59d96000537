'use strict';
// Takes a call from its INVOKE to its code: parses the input, evaluates the module if need be, finds the shape, runs
// it. Everything here runs in the call's async context; whatever is thrown is the call's outcome.

const P = require('./primordials.js');
const { shapeOf } = require('./shapes.js');
const { parseBody } = require('./body.js');

// run is called once for each call: with the whole body for a value, at once for an HTTP request.
function run(call) {
  if (!call.http) {
    try {
      call.input = call.raw === '' ? null : P.jsonParse(call.raw);
    } catch (e) {
      return call.invalid(`the input is not JSON: ${e.message}`);
    }
  }
  if (call.pipeline !== null) return call.pipeline.begin();
  let instance;
  call.globals = statedKind(call);
  try {
    instance = call.code.evaluate(call.head);
  } catch (e) {
    return call.fail(e, true);
  }
  if (instance.ready) return execute(call, instance);
  P.then(
    instance.pending,
    () => execute(call, instance),
    (e) => call.fail(e, true),
  );
}

// statedKind is what the caller said, else what the upload said.
function statedKind(call) {
  const { kind } = call.head;
  return kind === undefined || kind === 'auto' ? call.code.kind : kind;
}

function execute(call, instance) {
  if (call.ended) return call.settle(); // cancelled meanwhile
  try {
    const shape = shapeOf(instance, statedKind(call));
    call.globals = shape.globals ?? '';
    if (shape.takes === 'http' || !call.http) return shape.start(call);
    if (call.whole) return withBody(call, shape);
    call.onWhole = () => withBody(call, shape);
    call.link.grant(call, call.received);
  } catch (e) {
    call.fail(e, true);
  }
}

// withBody runs a function that is not HTTP-shaped on the parsed body of a request.
function withBody(call, shape) {
  if (call.ended) return call.settle();
  try {
    call.input = parseBody(call.head.http, P.concat(call.chunks));
  } catch (e) {
    return call.invalid(`the body is not JSON: ${e.message}`);
  }
  call.chunks = null;
  try {
    shape.start(call);
  } catch (e) {
    call.fail(e, true);
  }
}

module.exports = { run };
