// Fills the heap of the language.
module.exports = () => {
  const hoard = [];
  for (;;) hoard.push({ n: hoard.length, text: 'x' + hoard.length });
};
