function (user, context, callback) {
  // A token for the billing service, which trusts a shared secret and not the identity provider.
  const jwt = require('jsonwebtoken');

  const claims = { sub: user.user_id, plan: (user.app_metadata && user.app_metadata.plan) || 'free' };
  const token = jwt.sign(claims, configuration.BILLING_SECRET, {
    algorithm: 'HS256',
    issuer: 'login.acme.example',
    audience: 'billing',
    noTimestamp: true,
  });

  context.idToken = context.idToken || {};
  context.idToken['https://acme.example/billing_token'] = token;
  callback(null, user, context);
}
