function (user, context, callback) {
  // Written in 2014 and never touched since: free globals, callbacks in series, a bare string as an error.
  var namespace = 'https://acme.example/';

  async.waterfall([
    function (next) {
      request.get({ url: configuration.API_URL + '/profile', qs: { id: user.user_id } }, function (err, res, body) {
        if (err) return next(err);
        if (res.statusCode === 404) return next(null, {});
        if (res.statusCode !== 200) return next('Access denied');
        next(null, JSON.parse(body));
      });
    },
    function (profile, next) {
      var known = _.pick(profile, ['department', 'manager']);
      next(null, _.extend({ department: 'none' }, known));
    }
  ], function (err, claims) {
    if (err) return callback(err);
    context.idToken = context.idToken || {};
    _.forEach(claims, function (value, name) {
      context.idToken[namespace + name] = value;
    });
    callback(null, user, context);
  });
}
