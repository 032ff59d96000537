package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func readFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

func write(dir, file, text string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// ifThere forgives a file that this kernel has not.
func ifThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func readsAs(dir, file string, want int64) bool {
	n, err := readInt(dir, file)
	return err == nil && n == want
}

func readInt(dir, file string) (int64, error) {
	text, err := readFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	n, err := parseInt(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return n, nil
}

func parseInt(text string) (int64, error) {
	if text == "max" {
		return Unlimited, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// readKey reads a number from a file of lines "key number".
func readKey(dir, file, key string) (int64, error) {
	text, err := readFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %q", file, key)
}

func containsWord(text, word string) bool { return slices.Contains(strings.Fields(text), word) }
