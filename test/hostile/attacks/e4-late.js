// Answers after its deadline, by the agent and by hand.
module.exports = async (input) => {
  setTimeout(() => {
    try { send(linkFD(), Buffer.concat([frame(TYPE.LOG, 0, 0, withHead({ level: 'info', t: 0 }, 'late'))])); } catch {}
  }, 700);
  await sleep(650);
  return 'late';
};
