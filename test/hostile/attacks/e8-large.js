// Answers with more than anybody wants.
module.exports = async (input) => {
  switch (input.how) {
    case 'value':
      return 'x'.repeat(8 << 20);
    case 'list':
      return new Array(4 << 20).fill(0);
    case 'forged': { // a value without an end
      const fd = linkFD();
      const more = frame(TYPE.DATA, 0, input.stream, Buffer.alloc(65536, 97));
      send(fd, result(input.stream, '"', 0));
      for (let i = 0; i < 16384; i++) send(fd, more); // 1 GiB
      return 'not noticed';
    }
  }
};
