'use strict';
// Placeholder until the agent stands here: starts and stays.
setInterval(() => {}, 1 << 30);
