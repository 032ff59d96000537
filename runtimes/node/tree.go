package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const digestLength = 2 * sha256.Size

// node is one file of a tree. Exactly one of link, source and text says what is in it; a directory has none.
type node struct {
	mode   fs.FileMode // type and permissions
	link   string      // target of a symbolic link
	source string      // host file with the content; linked into the image, so never changed afterwards
	copied bool        // source is not ours: copy it
	text   []byte      // content made here
	size   int64
	sum    string // SHA-256 of the content, hex
}

// tree is a root file system by path, without leading slash.
type tree map[string]node

func (t tree) dir(path string, mode fs.FileMode) {
	for parent := filepath.Dir(path); parent != "."; parent = filepath.Dir(parent) {
		if _, ok := t[parent]; !ok {
			t[parent] = node{mode: fs.ModeDir | 0o755}
		}
	}
	t[path] = node{mode: fs.ModeDir | mode}
}

func (t tree) parents(path string) {
	if dir := filepath.Dir(path); dir != "." {
		if _, ok := t[dir]; !ok {
			t.dir(dir, 0o755)
		}
	}
}

func (t tree) text(path string, text []byte) {
	t.parents(path)
	sum := sha256.Sum256(text)
	t[path] = node{mode: 0o644, text: text, size: int64(len(text)), sum: hex.EncodeToString(sum[:])}
}

func (t tree) symlink(path, target string) {
	t.parents(path)
	t[path] = node{mode: fs.ModeSymlink | 0o777, link: target}
}

// copyOf adds the content of a host file, following links.
func (t tree) copyOf(path, source string, mode fs.FileMode) error {
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return err
	}
	sum, size, err := sumFile(real)
	if err != nil {
		return err
	}
	t.parents(path)
	t[path] = node{mode: mode, source: real, copied: true, size: size, sum: sum}
	return nil
}

// merge adds a cached layer below path.
func (t tree) merge(path string, l layer) {
	if _, ok := t[path]; !ok {
		t.dir(path, 0o755)
	}
	for _, f := range l.Files {
		full := filepath.Join(path, f.Path)
		if f.Dir {
			t.dir(full, 0o755)
			continue
		}
		t.parents(full)
		t[full] = node{mode: f.Mode, source: filepath.Join(l.dir, f.Path), size: f.Size, sum: f.Sum}
	}
}

func (t tree) paths() []string {
	paths := make([]string, 0, len(t))
	for p := range t {
		paths = append(paths, p)
	}
	slices.Sort(paths) // a directory sorts before what is in it
	return paths
}

// digest is over every path, mode, link target and content.
func (t tree) digest() string {
	h := sha256.New()
	for _, p := range t.paths() {
		n := t[p]
		fmt.Fprintf(h, "%q %o %q %s\n", p, uint32(n.mode), n.link, n.sum)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// check says whether root holds this tree, by types, modes, sizes and link targets: it finds an image that was cut short by a
// crash or a full disk, not one that an intruder with root's rights has changed.
func (t tree) check(root string) error {
	for p, n := range t {
		info, err := os.Lstat(filepath.Join(root, p))
		if err != nil {
			return err
		}
		same := info.Mode().Type() == n.mode.Type() && (n.mode.Type() == fs.ModeSymlink || info.Mode() == n.mode)
		if !same || n.mode.IsRegular() && info.Size() != n.size {
			return fmt.Errorf("%s differs from what was built", p)
		}
	}
	return nil
}

// write makes the tree in a new directory root. Directories get their modes and times last.
func (t tree) write(ctx context.Context, root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	paths := t.paths()
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t[p].write(filepath.Join(root, p)); err != nil {
			return fmt.Errorf("write %s: %w", p, err)
		}
	}
	for _, p := range slices.Backward(append([]string{"."}, paths...)) {
		n, ok := t[p]
		if ok && !n.mode.IsDir() {
			continue
		}
		mode := fs.FileMode(0o755)
		if ok {
			mode = n.mode
		}
		if err := finish(filepath.Join(root, p), mode.Perm()|mode&fs.ModeSticky); err != nil {
			return err
		}
	}
	return syncFS(root)
}

func (n node) write(path string) error {
	switch {
	case n.mode.IsDir():
		return os.Mkdir(path, 0o700)
	case n.mode.Type() == fs.ModeSymlink:
		return os.Symlink(n.link, path)
	case n.source == "":
		if err := os.WriteFile(path, n.text, 0o600); err != nil {
			return err
		}
		return finish(path, n.mode.Perm())
	case !n.copied && os.Link(n.source, path) == nil:
		return nil // the cache already gave it mode, owner and time
	default:
		return n.copyTo(path)
	}
}

// copyTo checks the content on the way: the source is a host file that may have changed since it was hashed.
func (n node) copyTo(path string) error {
	in, err := os.Open(n.source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != n.sum {
		return fmt.Errorf("%s changed while the image was made: try again", n.source)
	}
	return finish(path, n.mode.Perm())
}

// finish makes a file or directory root's, with the mode and the fixed time.
func finish(path string, mode fs.FileMode) error {
	if err := os.Chown(path, 0, 0); err != nil {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return os.Chtimes(path, epoch, epoch)
}

func sumFile(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// inside says whether a path from an archive or a listing stays below its root.
func inside(path string) bool {
	return path != "" && !filepath.IsAbs(path) && path != ".." && !strings.HasPrefix(filepath.Clean(path), "../")
}
