function (user, context, callback) {
  // A second factor for everybody who is not in the office, and once a month for those who are.
  const ipaddr = require('ipaddr.js@1.9.1');

  if (context.protocol === 'redirect-callback' || context.protocol === 'oauth2-refresh-token') {
    return callback(null, user, context);
  }
  const address = ipaddr.process(context.request.ip);
  const inOffice = configuration.OFFICE_RANGES.split(' ').some((range) => {
    const parsed = ipaddr.parseCIDR(range);
    return parsed[0].kind() === address.kind() && address.match(parsed);
  });
  const methods = (context.authentication && context.authentication.methods) || [];
  const done = methods.some((m) => m.name === 'mfa');

  if (!inOffice && !done) {
    context.multifactor = { provider: 'any', allowRememberBrowser: false };
  }
  callback(null, user, context);
}
