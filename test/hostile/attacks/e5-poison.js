// Says something on the connection after each of its answers, for whatever call comes next to take for its own: frames that a
// late agent may send and that are dropped.
module.exports = (input) => {
  const fd = linkFD();
  setImmediate(() => {
    send(fd, frame(TYPE.WINDOW, 0, 2, Buffer.from([0, 0, 0, 1])));
    if (input.n % 50 === 0) send(fd, frame(TYPE.LOG, 0, 0, withHead({ level: 'info', t: 1 }, '{"nonce":"poisoned"}')));
  });
  return { nonce: input.nonce };
};
