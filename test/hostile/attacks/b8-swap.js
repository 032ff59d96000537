// Touches more memory than it may have, again and again, so that what is idle would go to a swap.
module.exports = () => {
  const hoard = [];
  for (;;) {
    hoard.push(Buffer.alloc(2 << 20, hoard.length));
    for (const b of hoard) b[0]++;
  }
};
