// Sends frames that cost no credit, as fast as the connection takes them.
module.exports = async (input) => {
  const fd = linkFD();
  const own = input.stream;
  const one = { window: () => frame(TYPE.WINDOW, 0, own, Buffer.from([0, 0, 0, 0])), data: () => frame(TYPE.DATA, 0, own), past: () => frame(TYPE.WINDOW, 0, 2, Buffer.from([0, 0, 0, 1])),
    tiny: () => frame(TYPE.DATA, 0, own, Buffer.from('x')) }[input.how]();
  if (input.how === 'data' || input.how === 'tiny') send(fd, frame(TYPE.HEAD, 0, own, withHead({ status: 200, headers: [] })));
  const many = Buffer.concat(Array(20000).fill(one));
  for (const until = Date.now() + 5000; Date.now() < until; ) send(fd, many);
  return 'alive';
};
