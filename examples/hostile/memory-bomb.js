() => {
  const hoard = [];
  for (;;) hoard.push(Buffer.alloc(4 << 20, 1));
}
