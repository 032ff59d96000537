package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Bytes is a size as people write it: "512MiB", "8 GiB", "8g", or plain bytes. It is a flag's value as well.
type Bytes int64

// byteUnits are binary all of them: memory is what they measure here.
var byteUnits = []struct {
	suffix string
	shift  uint
}{
	{"kib", 10}, {"mib", 20}, {"gib", 30}, {"tib", 40},
	{"kb", 10}, {"mb", 20}, {"gb", 30}, {"tb", 40},
	{"k", 10}, {"m", 20}, {"g", 30}, {"t", 40}, {"b", 0},
}

// ParseBytes reads a size.
func ParseBytes(s string) (Bytes, error) {
	bad := fmt.Errorf("size %q: write a number of bytes or one with KiB, MiB, GiB, for example 8GiB", s)
	text, shift := strings.ToLower(strings.TrimSpace(s)), uint(0)
	for _, u := range byteUnits {
		if rest, found := strings.CutSuffix(text, u.suffix); found {
			text, shift = strings.TrimSpace(rest), u.shift
			break
		}
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || n < 0 {
		return 0, bad
	}
	n *= float64(int64(1) << shift)
	if n >= math.MaxInt64 {
		return 0, bad
	}
	return Bytes(n), nil
}

// String writes the size in the largest unit that is exact.
func (b Bytes) String() string {
	for _, u := range []struct {
		name  string
		shift uint
	}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if b >= 1<<u.shift && b&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(int64(b>>u.shift), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Set makes Bytes a flag's value.
func (b *Bytes) Set(s string) (err error) {
	*b, err = ParseBytes(s)
	return err
}

// Type is the flag's type in help texts.
func (b *Bytes) Type() string { return "size" }

// UnmarshalYAML reads a size from a file.
func (b *Bytes) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: a size is one value, for example 8GiB", n.Line)
	}
	v, err := ParseBytes(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	*b = v
	return nil
}
