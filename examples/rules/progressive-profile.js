function (user, context, callback) {
  // Asks for the company's name once, at the third login, on a page of our own.
  const metadata = user.user_metadata || {};

  if (context.protocol === 'redirect-callback') {
    const answer = context.request.query.company;
    if (!answer || answer.length > 100) {
      return callback(new UnauthorizedError('Please give the name of your company.'));
    }
    user.user_metadata = Object.assign({}, metadata, { company: answer });
    return callback(null, user, context);
  }
  const { loginsCount } = context.stats;
  if (!metadata.company && loginsCount >= 3) {
    const url = new URL(configuration.PROFILE_PAGE);
    url.searchParams.set('user', user.user_id);
    context.redirect = { url: url.toString() };
  }
  return callback(null, user, context);
}
