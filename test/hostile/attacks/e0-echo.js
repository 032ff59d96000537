// Says what it was told: nothing that it might not know. The oracle is tried with it.
module.exports = (input) => input.echo;
