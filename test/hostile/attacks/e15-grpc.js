// Never answers: the caller is the attack.
module.exports = () => new Promise(() => {});
