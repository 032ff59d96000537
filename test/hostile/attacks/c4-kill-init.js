// Ends the process that it runs in, one way or another.
module.exports = async (input) => {
  const script = (what) => nodeSync(what);
  switch (input.how) {
    case 'exit':
      process.exit(0);
    case 'abort':
      process.abort();
    case 'kill':
      process.kill(process.pid, 'SIGKILL');
    case 'child-kill':
      script(`process.kill(1, 'SIGKILL')`);
      break;
    case 'child-kill-all':
      script(`process.kill(-1, 'SIGKILL')`);
      break;
    case 'child-stop':
      script(`process.kill(1, 'SIGSTOP')`);
      break;
    case 'child-signals':
      for (const s of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGABRT', 'SIGSEGV', 'SIGUSR1', 'SIGUSR2', 'SIGPIPE', 'SIGXCPU']) script(`process.kill(1, '${s}')`);
      break;
    case 'quit': // what JavaScript cannot hook: the loop runs dry after the link is closed
      fs.closeSync(linkFD());
      break;
    case 'native':
      crash();
      await sleep(2000);
  }
  await sleep(150);
  return 'alive';
};
