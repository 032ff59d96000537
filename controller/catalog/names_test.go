package catalog

import (
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"paddock/internal/tenant"
)

// FuzzNames: whatever passes as a name of a tenant, a function or a secret means one thing in a key of the store, a path, a URL,
// a header field and a log line: nothing in it has to be escaped, goes up a directory, or splits what it is put into.
func FuzzNames(f *testing.F) {
	for _, s := range []string{
		"", "a", "acme", "A_b-9.z", "..", ".", ".hidden", "-rf", "a/b", "a%2fb", "a\x00", "a\n", "acme\r\nX: 1", "\u0430cme", "a@3",
		"a\u202eb", strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat("a", 128),
		strings.Repeat("a", 129), "NODE_OPTIONS", "__proto__", "\xff", "a b", "a..b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, idErr := tenant.ParseID(s)
		if idErr == nil && string(id) != s {
			t.Errorf("tenant %q became %q", s, id)
		}
		for what, v := range map[string]struct {
			err  error
			most int
		}{
			"tenant":   {idErr, 63},
			"function": {CheckFunctionName(s), 64},
			"secret":   {CheckSecretName(s), 128},
		} {
			if v.err != nil {
				if text := v.err.Error(); !utf8.ValidString(text) || strings.ContainsAny(text, "\n\r\x00\x1b") || len(text) > 1000 {
					t.Errorf("%s %q: the complaint is %q", what, s, text)
				}
				continue
			}
			if s == "" || len(s) > v.most || url.PathEscape(s) != s || url.QueryEscape(s) != s || path.Clean("/x/"+s) != "/x/"+s ||
				strings.ContainsAny(s, "/\\@:%\"'`$ ") || s[0] == '-' || s[0] == '.' {
				t.Errorf("%s %q passed", what, s)
			}
		}
	})
}
