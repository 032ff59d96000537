function (user, context, callback) {
  // At most five logins of one user in a minute. The count lives as long as the container: good enough to stop a script.
  const limit = parseInt(configuration.LOGINS_PER_MINUTE || '5', 10);
  const now = Date.now();

  global.logins = global.logins || {};
  const recent = (global.logins[user.user_id] || []).filter((at) => now - at < 60 * 1000);
  recent.push(now);
  global.logins[user.user_id] = recent;

  if (recent.length > limit) {
    return callback(new UnauthorizedError('Too many logins. Please wait a minute.'));
  }
  callback(null, user, context);
}
