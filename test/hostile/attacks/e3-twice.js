// Answers its own call twice, or says more behind its answer.
module.exports = async (input) => {
  const fd = linkFD();
  const own = input.stream;
  switch (input.how) {
    case 'twice':
      send(fd, Buffer.concat([result(own, '"first"', END), result(own, '"second"')]));
      break;
    case 'then-data':
      send(fd, Buffer.concat([result(own, '"first"', END), frame(TYPE.DATA, END, own, Buffer.from('more'))]));
      break;
    case 'then-head':
      send(fd, Buffer.concat([result(own, '"first"', END), frame(TYPE.HEAD, 0, own, withHead({ status: 200, headers: [] }))]));
      break;
    case 'settled-twice':
      send(fd, Buffer.concat([result(own, '"first"'), frame(TYPE.SETTLED, 0, own)]));
      break;
    case 'then-agent': // the agent's own answer is the second
      send(fd, result(own, '"first"'));
      return 'second';
  }
  await sleep(2000);
  return 'not noticed';
};
