package trace

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// touch is one path in one system call of one thread.
type touch struct {
	pid  int
	call string
	path string // absolute and clean; for what a call opened, where it really led
}

// traced is what `strace -f -y -e trace=…` wrote about one of our processes.
type traced struct {
	pids    map[int]bool // every thread that was seen
	touches []touch
	execs   map[string]int // programs that were started, and how often
	became  map[int]bool   // those that became another program
	foreign []string       // calls that could lead into another mount namespace, or that nobody can judge
}

func newTraced() *traced {
	return &traced{pids: map[int]bool{}, execs: map[string]int{}, became: map[int]bool{}}
}

// How many of a call's strings are paths; what is not here has one.
var twoPaths = map[string]bool{
	"rename": true, "renameat": true, "renameat2": true, "link": true, "linkat": true, "symlink": true, "symlinkat": true, "mount": true,
	"pivot_root": true, "move_mount": true,
}

// Calls by which a process gets at another one's files without a path.
var crossing = map[string]bool{
	"setns": true, "open_tree": true, "move_mount": true, "open_by_handle_at": true, "pidfd_getfd": true, "fsopen": true, "chroot": true,
	"pivot_root": true,
}

var (
	lineForm   = regexp.MustCompile(`^(\d+) +(.*)$`)
	callForm   = regexp.MustCompile(`^(\w+)\((.*)$`)
	resumeForm = regexp.MustCompile(`^<\.\.\. (\w+) resumed>(.*)$`)
	pathForm   = regexp.MustCompile(`(?:(AT_FDCWD|-?\d+)(?:<((?:[^>\\]|\\.)*)>)?, )?"((?:[^"\\]|\\.)*)"`)
	sunForm    = regexp.MustCompile(`sun_path=(@?)"((?:[^"\\]|\\.)*)"`)
	openedForm = regexp.MustCompile(`= \d+<(/[^>]*)>`)
	firstForm  = regexp.MustCompile(`^\d+<(/[^>]*)>`)
)

// ours says whether a pid is one of the processes that were watched.
func (tr *traced) ours(pid int) bool { return tr.pids[pid] && !tr.became[pid] }

// read takes in a file of strace's. A line that it does not understand is an error: what is not read is not judged.
func (tr *traced) read(r io.Reader) error {
	unfinished := map[int]string{}
	first := 0 // whose program is the watched one
	defer func() { delete(tr.became, first) }()
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		m := lineForm.FindStringSubmatch(sc.Text())
		if m == nil {
			return fmt.Errorf("a line of strace's that begins with no pid: %q", sc.Text())
		}
		pid, err := strconv.Atoi(m[1])
		if err != nil {
			return err
		}
		if tr.pids[pid] = true; first == 0 {
			first = pid
		}
		text := m[2]
		if strings.HasPrefix(text, "+++") || strings.HasPrefix(text, "---") || strings.HasPrefix(text, "strace: ") {
			continue
		}
		if begin, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
			unfinished[pid] = begin
			continue
		}
		if r := resumeForm.FindStringSubmatch(text); r != nil {
			begin := unfinished[pid]
			if delete(unfinished, pid); !strings.HasPrefix(begin, r[1]+"(") {
				if begin != "" || r[1] != "execve" { // the program itself is started before its threads are told apart
					return fmt.Errorf("pid %d resumes %s after %q", pid, r[1], begin)
				}
				continue
			}
			text = begin + r[2]
		}
		if err := tr.call(pid, text); err != nil {
			return fmt.Errorf("%w in %q", err, sc.Text())
		}
	}
	for _, pid := range slices.Sorted(maps.Keys(unfinished)) { // threads that ended in the middle: what they asked for counts
		text := unfinished[pid]
		if text == "???(" { // killed at the call's door, before strace could ask which one it is
			continue
		}
		if err := tr.call(pid, text); err != nil {
			return fmt.Errorf("%w in %q", err, text)
		}
	}
	return sc.Err()
}

// call takes in one complete system call.
func (tr *traced) call(pid int, text string) error {
	m := callForm.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("no system call")
	}
	name, args := m[1], m[2]
	if crossing[name] {
		tr.foreign = append(tr.foreign, text)
	}
	switch name {
	case "connect", "bind":
		for _, s := range sunForm.FindAllStringSubmatch(args, -1) {
			if s[1] == "" { // abstract ones are no files
				if err := tr.add(pid, name, "", "", s[2]); err != nil {
					return err
				}
			}
		}
		return nil
	case "getdents64", "fchdir":
		if f := firstForm.FindStringSubmatch(args); f != nil {
			return tr.add(pid, name, "", "", f[1])
		}
		return nil
	}
	most := 1
	if twoPaths[name] {
		most = 2
	}
	paths := pathForm.FindAllStringSubmatch(args, most)
	if text := strings.HasPrefix(name, "symlink"); len(paths) > 0 && (text || name == "mount" && !path.IsAbs(paths[0][3])) {
		paths = paths[1:] // a link's text is not looked up; what is mounted may be no file: "tmpfs"
	}
	for _, p := range paths {
		if name == "execve" {
			tr.execs[p[3]]++
			tr.became[pid] = true
		}
		if err := tr.add(pid, name, p[1], p[2], p[3]); err != nil {
			return err
		}
	}
	if o := openedForm.FindStringSubmatch(args); o != nil {
		return tr.add(pid, name+" led to", "", "", o[1])
	}
	return nil
}

// add notes a path as it was given: absolute, or below a directory that strace named.
func (tr *traced) add(pid int, call, fd, dir, given string) error {
	given, err := unescape(given)
	if err != nil {
		return err
	}
	if dir, err = unescape(dir); err != nil {
		return err
	}
	switch {
	case given == "" && fd != "" && dir != "": // AT_EMPTY_PATH: the descriptor itself
		given = dir
	case given == "":
		return nil // the kernel refuses it
	case !path.IsAbs(given) && dir == "":
		return fmt.Errorf("a relative path without its directory")
	case !path.IsAbs(given):
		given = path.Join(dir, given)
	}
	if !path.IsAbs(given) { // a pipe, a socket
		return nil
	}
	tr.touches = append(tr.touches, touch{pid: pid, call: call, path: path.Clean(given)})
	return nil
}

// unescape undoes strace's escapes: those of C, octal ones of one to three digits.
func unescape(s string) (string, error) {
	var b strings.Builder
	for rest := s; ; {
		plain, escaped, found := strings.Cut(rest, `\`)
		b.WriteString(plain)
		if !found {
			return b.String(), nil
		}
		digits := 0
		for digits < min(3, len(escaped)) && '0' <= escaped[digits] && escaped[digits] <= '7' {
			digits++
		}
		if n, err := strconv.ParseUint(escaped[:digits], 8, 8); err == nil {
			b.WriteByte(byte(n))
			rest = escaped[digits:]
			continue
		}
		at := -1
		if escaped != "" {
			at = strings.IndexByte(`abfnrtv"\`, escaped[0])
		}
		if at < 0 {
			return "", fmt.Errorf("an escape that strace does not write, in %q", s)
		}
		b.WriteByte("\a\b\f\n\r\t\v\"\\"[at])
		rest = escaped[1:]
	}
}

func TestReadsWhatStraceWrites(t *testing.T) {
	tr := newTraced()
	err := tr.read(strings.NewReader(`100 execve("/bin/p", ["p", "/not/this"], 0x7ffe /* 3 vars */) = 0
100 openat(AT_FDCWD</>, "/etc/x", O_RDONLY|O_CLOEXEC) = 3</etc/y>
104 execve("/bin/other", ["other"], 0x7ffe /* 3 vars */ <unfinished ...>
101 newfstatat(5</data>, "a/../b", {st_mode=S_IFREG|0600}, AT_SYMLINK_NOFOLLOW) = 0
101 openat(AT_FDCWD</src>, "rel", O_RDONLY <unfinished ...>
100 readlinkat(AT_FDCWD</>, "/proc/self/exe", "/bin/p", 128) = 6
101 <... openat resumed>) = -1 ENOENT (No such file or directory)
102 connect(7<socket:[1]>, {sa_family=AF_UNIX, sun_path="/run/s"}, 9) = 0
102 connect(7<socket:[1]>, {sa_family=AF_UNIX, sun_path=@"abstract"}, 9) = 0
102 renameat(AT_FDCWD</>, "/a", AT_FDCWD</>, "/b") = 0
102 getdents64(9</dir>, 0xc000 /* 2 entries */, 8192) = 48
102 newfstatat(9</dir>, "", {st_mode=S_IFDIR|0700}, AT_EMPTY_PATH) = 0
102 mount("tmpfs", "/mnt", "tmpfs", MS_NOSUID, "size=1") = 0
102 symlinkat("../x", AT_FDCWD</>, "/link") = 0
103 setns(9<mnt:[4026532]>, CLONE_NEWNS) = 0
103 openat(AT_FDCWD</a\74b>, "F\305\221\n\"\\1", O_RDONLY) = -1 ENOENT (No such file or directory)
103 openat(AT_FDCWD</>, "/last", O_RDONLY <unfinished ...>
103 +++ exited with 0 +++
105 ???( <unfinished ...>
105 +++ killed by SIGKILL +++
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range tr.touches {
		got = append(got, fmt.Sprintf("%d %s %s", c.pid, c.call, strings.Trim(strconv.QuoteToASCII(c.path), `"`)))
	}
	want := `100 execve /bin/p
100 openat /etc/x
100 openat led to /etc/y
101 newfstatat /data/b
100 readlinkat /proc/self/exe
101 openat /src/rel
102 connect /run/s
102 renameat /a
102 renameat /b
102 getdents64 /dir
102 newfstatat /dir
102 mount /mnt
102 symlinkat /link
103 openat /a<b/F\u0151\n\"\\1
103 openat /last
104 execve /bin/other`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	if len(tr.foreign) != 1 || tr.execs["/bin/p"] != 1 || len(tr.pids) != 6 || !tr.ours(100) || tr.ours(104) || tr.ours(106) {
		t.Errorf("%+v", tr)
	}
	for _, bad := range []string{
		"no pid at all\n", "1 openat(AT_FDCWD, \"rel\", O_RDONLY) = 3\n", "1 openat(AT_FDCWD</>, \"/a\\qb\", O_RDONLY) = 3\n", "1 openat(AT_FDCWD</>, \"/a\\777\", O_RDONLY) = 3\n",
		"1 <... openat resumed>) = 3\n", "1 gibberish\n", "1 ???()\n",
	} {
		if err := newTraced().read(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
