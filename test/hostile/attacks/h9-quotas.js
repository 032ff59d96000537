// Uses up what the kernel counts per user: watches, pipes, pending signals. Others must not have the same user.
module.exports = async () => {
  const open = [];
  let watches = 0;
  try { for (; watches < 500; watches++) open.push(fs.watch('/tmp', () => {})); } catch (e) { report.facts.watch = e.code; }
  report.facts.watches = watches;
  for (let i = 0; i < 40; i++) try { open.push(child.spawn(process.execPath, ['-v'], { stdio: 'pipe' }).on('error', () => {})); } catch { break; }
  must('no more watches than one user may have', watches <= 256, watches);
  for (const w of open) try { w.close ? w.close() : w.kill('SIGKILL'); } catch {}
  await sleep(200);
  return report;
};
