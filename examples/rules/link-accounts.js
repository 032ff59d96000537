function (user, context, callback) {
  // The same person by password and by a social login is one user: the older account becomes the primary one.
  const request = require('request@2.88.2');

  if (!user.email || !user.email_verified || context.protocol === 'oauth2-refresh-token') {
    return callback(null, user, context);
  }
  const users = configuration.API_URL + '/users';
  const headers = { Authorization: 'Bearer ' + configuration.API_TOKEN };

  request({ url: users, headers, qs: { email: user.email }, json: true }, function (err, response, found) {
    if (err) return callback(err);
    if (response.statusCode !== 200) return callback(new Error('searching users: ' + response.statusCode));

    const others = found.filter((u) => u.email_verified && u.user_id !== user.user_id);
    if (others.length === 0) return callback(null, user, context);
    if (others.length > 1) return callback(new Error('more than one account to link to'));

    const primary = others[0];
    const provider = user.identities[0].provider;
    request.post({
      url: users + '/' + encodeURIComponent(primary.user_id) + '/identities',
      headers,
      json: { provider, user_id: user.identities[0].user_id },
    }, function (err, response) {
      if (err) return callback(err);
      if (response.statusCode >= 400) return callback(new Error('linking accounts: ' + response.statusCode));
      context.primaryUser = primary.user_id;
      console.log('linked', user.user_id, 'to', primary.user_id);
      callback(null, user, context);
    });
  });
}
