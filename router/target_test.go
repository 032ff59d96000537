package router

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// FuzzRef: a reference that is read is one name and one version, and says so in one way only.
func FuzzRef(f *testing.F) {
	for _, s := range []string{"", "f", "f@3", "f@0", "f@-1", "f@+1", "f@01", "f@", "@3", "f@3@4", "..", ".@1", "a/b", "f@9223372036854775808",
		"f@1e3", "f@ 1", "\u0430", strings.Repeat("f", 256), strings.Repeat("f", 257)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		name, version, err := parseRef(ref)
		if err != nil {
			if name != "" || version != 0 {
				t.Errorf("%q: %q, %d and %v", ref, name, version, err)
			}
			return
		}
		if again := name + "@" + strconv.FormatInt(version, 10); ref != again && (ref != name || version != 0) {
			t.Errorf("%q was read as %q", ref, again)
		}
		if name == "" || url.PathEscape(name) != name || strings.Trim(name, ".") == "" && len(name) < 3 {
			t.Errorf("%q: name %q", ref, name)
		}
	})
}
