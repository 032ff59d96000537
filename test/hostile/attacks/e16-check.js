// A health check that misbehaves, run after run.
module.exports = async (input) => {
  switch (input.how) {
    case 'loop':
      while (1) {}
    case 'fail':
      throw new Error('unhealthy');
    case 'flap':
      if (input.n % 2) while (1) {}
      return { healthy: true };
    case 'lie':
      return { healthy: true, 'paddock-error': 'none', outcome: 'ok', status: 200, toString: 'healthy' };
    case 'die':
      crash();
      await sleep(2000);
  }
};
