function (user, context, callback) {
  // Tells the sales channel of first logins. The login does not wait for the chat, nor fail with it.
  if (!context.stats || context.stats.loginsCount > 1) return callback(null, user, context);

  const slack = require('slack-notify')(configuration.CHAT_WEBHOOK);
  const told = slack.success({
    text: 'New user: ' + (user.name || user.email),
    channel: '#signups',
    fields: { email: user.email, application: context.clientName },
  });
  Promise.resolve(told).catch((err) => console.warn('chat:', err.message));
  callback(null, user, context);
}
