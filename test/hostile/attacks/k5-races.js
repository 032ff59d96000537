// One of many that are deployed at the same moment, where there is room for one.
module.exports = () => 'first';
