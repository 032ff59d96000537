// Speaks to the proxy as it does not want to be spoken to: other methods and protocols, forged fields, heads without an end. The
// tenant may reach all public hosts. (Names that resolve to one address and then to another take a name server of our own: the proxy's
// own tests have one.)
module.exports = async (input) => {
  await refusedByProxy(input.raw);
  return report;
};
