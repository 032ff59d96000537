// Code that nobody gets to deploy: its names are the attack.
module.exports = () => 'deployed under a name that means something elsewhere';
