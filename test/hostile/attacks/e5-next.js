// Has an answer ready for whatever call comes next.
module.exports = async (input) => {
  const fd = linkFD();
  for (let i = 1; i <= 64; i++) send(fd, result(input.stream + i, '"poisoned"'));
  await sleep(2000);
  return 'not noticed';
};
