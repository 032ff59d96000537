// Begins a frame that it never ends: what the agent says after it is swallowed.
module.exports = async () => {
  const b = Buffer.alloc(10);
  b.writeUInt32BE(100000, 0);
  b[4] = TYPE.LOG;
  send(linkFD(), b);
  return 'swallowed';
};
