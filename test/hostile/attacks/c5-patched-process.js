// Takes away from the agent whatever JavaScript can take away, and does not stop.
module.exports = () => {
  for (const event of process.eventNames()) process.removeAllListeners(event);
  for (const key of Object.getOwnPropertyNames(process)) try { process[key] = () => {}; } catch {}
  for (const key of ['setTimeout', 'setImmediate', 'clearTimeout', 'queueMicrotask', 'AbortController', 'Promise', 'Map', 'Buffer']) globalThis[key] = undefined;
  while (1) {}
};
