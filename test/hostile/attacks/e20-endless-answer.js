// Answers an HTTP request with a body that never ends. The client does not read it.
module.exports = (ctx, req, res) => {
  const chunk = Buffer.alloc(1 << 16, 97);
  const more = () => { while (res.write(chunk)); };
  res.on('drain', more);
  more();
};
