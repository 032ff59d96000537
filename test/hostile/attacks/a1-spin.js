// Never gives the event loop back.
module.exports = () => {
  while (1) {}
};
