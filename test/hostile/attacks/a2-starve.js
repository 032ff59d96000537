// Keeps the event loop going without ever letting it come to anything else.
module.exports = (input) => {
  const again = {
    microtask: () => Promise.resolve().then(again.microtask),
    nextTick: () => process.nextTick(again.nextTick),
    immediate: () => setImmediate(again.immediate),
    queue: () => queueMicrotask(again.queue),
  };
  again[input.how]();
  return new Promise(() => {});
};
