// Runs while it is replaced and while its secret is changed: it says which version it is, and which secret it had, at its end.
module.exports = async (ctx, cb) => {
  const secret = ctx.secrets.TOKEN;
  await sleep(ctx.data.pause || 0);
  cb(null, { version: 'VERSION', secret, still: ctx.secrets.TOKEN });
};
