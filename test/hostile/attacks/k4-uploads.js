// What stands in for source text: the caller uploads archives, bytecode and more than there may be.
module.exports = () => 'source';
